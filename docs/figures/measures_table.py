"""Writes the tables of docs/measures.md and docs/measures.ko.md by measuring the rules on the shipped sentences.

python docs/figures/measures_table.py     rewrites what stands between the markers; takes seconds
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.evaluate.measures.command import DEVELOPMENT, HELD_OUT, RULES, labelled_rows, measures_report

DOCS = Path(__file__).parents[1]
PAGES = {"en": DOCS / "measures.md", "ko": DOCS / "measures.ko.md"}
BEGIN, END = "<!-- measures:begin -->", "<!-- measures:end -->"
HEAD = {
    "en": ("measure, category", "rows", "precision", "recall", "agreement", "agreement, development half"),
    "ko": ("항목과 갈래", "문장", "정밀도", "재현율", "일치율", "일치율(개발용 절반)"),
}
Found = Mapping[str, Any]


def rewritten(page: str, language: str) -> str:
    """The text of a page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise SystemExit(f"the page must hold {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{table(language)}{END}{after}"


def table(language: str) -> str:
    """Every measure, its labels and its categories on the held-out half, as rows of Markdown."""
    head = HEAD[language]
    rows = [list(head), ["---", *["---:"] * (len(head) - 1)], *_rows()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _rows() -> Iterator[list[str]]:
    parts = _parts()
    for found, seen in zip(parts[HELD_OUT], parts[DEVELOPMENT], strict=True):
        whole = {**found["labels"].get("yes", {}), "num": found["num"], "agree": found["agree"]}
        yield _row(f"**{found['measure']}**", whole, seen)
        for label, each in found["labels"].items():
            if label != "yes":
                yield _row(f"label `{label}`", each, {})
        for kind, each in found["kinds"].items():
            yield _row(kind, each, seen["kinds"].get(kind, {}))


def _row(name: str, found: Found, seen: Found) -> list[str]:
    figures = [_figure(found.get(key)) for key in ("precision", "recall", "agree")]
    return [name, str(found["num"]), *figures, f"{seen['agree']['mean']:.3f}" if "agree" in seen else ""]


def _figure(figure: Found | None) -> str:
    if figure is None or math.isnan(figure["mean"]):
        return ""
    return f"{figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


@cache
def _parts() -> Mapping[str, Any]:
    return measures_report(labelled_rows((), tuple(RULES)), tuple(RULES), halves=True)["parts"]


def main() -> None:
    """Rewrites both pages."""
    for language, path in PAGES.items():
        path.write_text(rewritten(path.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
