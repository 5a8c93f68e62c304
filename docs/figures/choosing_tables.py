"""Writes the measured tables of docs/choosing.md and docs/choosing.ko.md from arms.json in this folder.

python docs/figures/choosing_tables.py                rewrites what stands between the markers
python docs/figures/choosing_tables.py --take RUN     first copies the report of a finished `rlhf arms --out RUN`

Without arms.json the pages say which command makes the tables.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent / "arms.json"
DOCS = Path(__file__).parents[1]
PAGES = {"en": DOCS / "choosing.md", "ko": DOCS / "choosing.ko.md"}
BEGIN, END = "<!-- arms:begin -->", "<!-- arms:end -->"
COMMAND = "rlhf arms configs/demo/arms.yaml --out runs/arms"
MISSING = {
    "en": f"No comparison is recorded here. `{COMMAND}` makes one after `rlhf quickstart`, and writes its\n"
    "table to `runs/arms/arms.md`.\n",
    "ko": f"여기에 기록해 둔 비교는 없습니다. `rlhf quickstart`를 마친 뒤 `{COMMAND}`를 실행하면 비교가 끝나고,\n"
    "표는 `runs/arms/arms.md`에 기록됩니다.\n",
}
ARMS = {
    "en": ("arm", "score of the judge", "KL, nats", "polite", "on topic", "rude", "distinct-2", "ended", "seconds"),
    "ko": ("방법", "심사 점수", "KL(nats)", "존댓말", "질문의 소재", "무례한 말", "distinct-2", "스스로 끝맺음", "초"),
}
COSTS = {
    "en": (
        "",
        "steps x rows",
        "answers drawn",
        "tokens sampled",
        "tokens trained",
        "seconds by part",
        "processor seconds",
    ),
    "ko": ("방법", "스텝 x 행", "뽑은 답변", "샘플링 토큰", "학습 토큰", "부분별 초", "프로세서 초"),
}
PAIRS = {
    "en": ("pair", "difference, corrected interval", "p, corrected", "prompts to tell"),
    "ko": ("쌍", "차이와 보정한 구간", "보정한 p", "판단에 필요한 프롬프트"),
}
ABOUT = {
    "en": "{date}, `{command}`: {num_prompts} held-out prompts, {answers_per_prompt} answers each.",
    "ko": "{date}, `{command}`: 평가용 프롬프트 {num_prompts}개, 프롬프트마다 답변 {answers_per_prompt}개.",
}
CLOCKS = ("seconds", "cpu_seconds")
SHARES = ("polite", "on_topic", "rude", "distinct2", "eos")
Report = Mapping[str, Any]


def rewritten(page: str, language: str, report: Report | None) -> str:
    """The text of a page with what stands between the markers made anew; None where nothing was measured."""
    before, _, rest = page.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise SystemExit(f"the page must hold {BEGIN} ... {END}")
    made = MISSING[language] if report is None else measured(report, language)
    return f"{before}{BEGIN}\n{made}{END}{after}"


def measured(report: Report, language: str) -> str:
    """The arms, their costs, every pair, and the verdict."""
    about = ABOUT[language].format(date=report["measured"], command=COMMAND, **_counts(report))
    arms = report["arms"].items()
    tables = [
        _markdown(ARMS[language], [_arm(name, arm) for name, arm in arms if "reward" in arm]),
        _markdown(COSTS[language], [_cost(name, arm) for name, arm in arms if arm["budget"]]),
        _markdown(PAIRS[language], [_pair(each) for each in report["comparisons"]]),
    ]
    return "\n".join([f"{about}\n", *tables, f"> {report['verdict'][language]}\n"])


def take(folder: Path) -> None:
    """Copies the report of a finished comparison, as precisely as it is shown, without every other measure."""
    text = (folder / "report.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_float=lambda number: round(float(number), 4))
    kept = {key: report[key] for key in ("arms", "comparisons", "votes", "verdict", *_counts(report))}
    for arm in kept["arms"].values():
        arm.pop("measures", None)
    kept["measured"] = datetime.date.today().isoformat()
    FIGURES.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def recorded() -> Report | None:
    """The comparison in this folder; None where there is none."""
    found: Report | None = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else None
    return found


def _counts(report: Report) -> dict[str, int]:
    return {key: report[key] for key in ("num_prompts", "answers_per_prompt")}


def _arm(name: str, arm: Mapping[str, Any]) -> list[str]:
    low, high = arm["interval"]
    shares = ["–" if arm[key] is None else f"{arm[key]:.1%}" for key in SHARES]
    score = f"{arm['reward']:.2f} [{low:.2f}, {high:.2f}]"
    return [f"`{name}`", score, f"{arm['kl']:.2f}", *shares, f"{arm['seconds']:,.0f}"]


def _cost(name: str, arm: Mapping[str, Any]) -> list[str]:
    budget, tokens = arm["budget"], arm["tokens"]
    spent = [" + ".join(f"{part} {value:,.0f}" for part, value in arm[f"{kind}_by_part"].items()) for kind in CLOCKS]
    counts = [f"{tokens.get(kind, 0):,}" for kind in ("sampled", "trained")]
    return [
        f"`{name}`",
        f"{budget['steps']:,} x {budget['rows_per_step']:,}",
        f"{budget['answers']:,}",
        *counts,
        *spent,
    ]


def _pair(pair: Mapping[str, Any]) -> list[str]:
    figures = f"{pair['mean']:+.2f} [{pair['low']:+.2f}, {pair['high']:+.2f}]"
    needed = pair["prompts_for_80_percent_power"]
    return [
        f"`{pair['of']}` - `{pair['minus']}`",
        f"**{figures}**" if pair["differ"] else figures,
        f"{pair['p_corrected']:.4f}",
        "–" if needed is None else f"{needed:,}",
    ]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Rewrites both pages."""
    parser = argparse.ArgumentParser(description="Writes the measured tables of docs/choosing.md and its Korean twin.")
    parser.add_argument("--take", type=Path, metavar="RUN", help="folder of a finished rlhf arms")
    arguments = parser.parse_args()
    if arguments.take:
        take(arguments.take)
    for language, path in PAGES.items():
        path.write_text(rewritten(path.read_text(encoding="utf-8"), language, recorded()), encoding="utf-8")


if __name__ == "__main__":
    main()
