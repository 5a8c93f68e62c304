"""Writes the table of docs/metrics.md and docs/metrics.ko.md from rlhf/config/metrics.yaml.

python docs/figures/metrics_table.py     rewrites what stands between the markers
"""

from __future__ import annotations

import re
from pathlib import Path

from rlhf.config.metric_names import Metric, metrics
from rlhf.config.stages import CHAIN, STAGES

DOCS = Path(__file__).parents[1]
PAGES = {"en": DOCS / "metrics.md", "ko": DOCS / "metrics.ko.md"}
BEGIN, END = "<!-- metrics:begin -->", "<!-- metrics:end -->"
HEAD = {
    "en": ("name", "stage", "unit", "meaning", "healthy", "logged"),
    "ko": ("이름", "단계", "단위", "의미", "정상 범위", "기록 조건"),
}
EVERY_STEP = {"en": "every step", "ko": "매 스텝"}


def rewritten(page: str, language: str) -> str:
    """The text of a page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise SystemExit(f"the page must hold {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{table(language)}{END}{after}"


def table(language: str) -> str:
    """Every metric as a row of Markdown."""
    head = HEAD[language]
    rows = [head, ["---"] * len(head), *(_cells(metric, language) for metric in metrics())]
    return "".join(re.sub(" +", " ", f"| {' | '.join(cells)} |\n") for cells in rows)


def _cells(metric: Metric, language: str) -> list[str]:
    stages = [(str(number) if stage in CHAIN else stage, stage) for number, stage in enumerate(STAGES, 1)]
    numbers = ", ".join(shown for shown, stage in stages if stage in metric.stages)
    healthy, when = metric.healthy.get(language, ""), metric.when.get(language, EVERY_STEP[language])
    return [f"`{metric.name}`", numbers, metric.unit[language], metric.meaning[language], healthy, when]


def main() -> None:
    """Rewrites both pages."""
    for language, path in PAGES.items():
        path.write_text(rewritten(path.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
