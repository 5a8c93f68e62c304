"""A page that stands alone: plain HTML with its style, inline SVG, nothing fetched; readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rlhf.errors import require_packages

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Apple SD Gothic Neo", "Noto Sans KR", "Malgun Gothic", NanumGothic, sans-serif;
  margin: 0 auto; max-width: 46rem; padding: 1rem; color: #1d2430; background: #fff; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.note { color: #5a6473; font-size: .85rem; margin-top: -.4rem; }
.answer { border-left: 3px solid #d5dae0; padding-left: .7rem; margin: .8rem 0; overflow-wrap: anywhere; }
.answer p { margin: .3rem 0; } small { color: #5a6473; }
.path { overflow-wrap: anywhere; color: #5a6473; font-size: .85rem; }
.verdict { border-left: 4px solid #b3541e; background: #fbf3ee; padding: .6rem .9rem; }
.verdict.good { border-color: #23735a; background: #eef7f3; }
.big { font-size: 2.2rem; font-weight: 600; line-height: 1.2; }
.big small { font-size: 1rem; font-weight: 400; color: #5a6473; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid #e3e6ea; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
th { font-weight: 600; color: #5a6473; vertical-align: bottom; white-space: normal; }
svg { width: 100%; max-width: 36rem; height: auto; display: block; margin: 0 auto .8rem; }
svg text { font-family: system-ui, "Apple SD Gothic Neo", "Noto Sans KR", NanumGothic, sans-serif !important; }
"""
Cells = Sequence[str]


def require_matplotlib() -> None:
    """Raises ConfigError, naming the extra, when the page's plots could not be drawn."""
    require_packages("matplotlib", extra="report", needed_by="the report page")


def document(title: str, body: str, style: str = "") -> str:
    """The whole page around `body`; `style` comes after the common one."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>{body}</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what is under it; nothing where that is nothing."""
    return f"<h2>{escape(title)}</h2>{''.join(parts)}" if any(parts) else ""


def table(head: Cells, rows: Sequence[Cells]) -> str:
    """Text cells, escaped here; the first column reads from the left."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'
