"""scaling.svg: how time grows with each measured number, on logarithmic axes, with the fit and its exponent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLUMNS, PANEL, GAP, TOP, LEFT = 3, (196, 120), (58, 60), 96, 58
COLOR, GREY, GRID = "#2563eb", "#6b7280", "#e5e7eb"
TEXTS = {
    "en": {
        "title": "How time grows",
        "caption": "both axes logarithmic; points: measured, line: y = a x^b; {date}",
        "tokens": "tokens of a row",
        "answers": "answers per prompt",
        "parameters": "parameters",
        "ranks": "ranks",
        "prompts": "prompts per iteration",
        "slots": "decode slots",
        "import": "rows, data import",
        "check": "rows, data check",
        "filter": "rows, data filter",
    },
    "ko": {
        "title": "시간이 늘어나는 정도",
        "caption": "두 축 모두 로그, 점은 측정값, 선은 y = a x^b, {date} 측정",
        "tokens": "행의 토큰 수",
        "answers": "프롬프트당 답변 수",
        "parameters": "파라미터 수",
        "ranks": "rank 수",
        "prompts": "이터레이션당 프롬프트 수",
        "slots": "디코딩 슬롯 수",
        "import": "행 수, data import",
        "check": "행 수, data check",
        "filter": "행 수, data filter",
    },
}
Curve = Mapping[str, Any]


def scaling_picture(figures: Mapping[str, Any], language: str) -> str:
    """One SVG: a panel for each curve."""
    words, curves = TEXTS[language], figures["curves"]
    lines = math.ceil(len(curves) / COLUMNS)
    width = LEFT + COLUMNS * (PANEL[0] + GAP[0])
    height = TOP + lines * (PANEL[1] + GAP[1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{words["title"]}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text_mark(20, 28, words["title"], size=17, weight=600),
        text_mark(20, 48, words["caption"].format(date=figures["measured"]), color=GREY),
    ]
    for number, (name, curve) in enumerate(curves.items()):
        corner = (
            LEFT + number % COLUMNS * (PANEL[0] + GAP[0]),
            TOP + number // COLUMNS * (PANEL[1] + GAP[1]),
        )
        parts += _panel(corner, words[name], curve)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(corner: tuple[int, int], title: str, curve: Curve) -> Iterator[str]:
    left, top = corner
    fit, points = curve["fits"]["time_s"], [(point["x"], point["time_s"]) for point in curve["points"]]
    ends = [(x, fit["scale"] * x ** fit["exponent"]) for x in (points[0][0], points[-1][0])]
    x_range, y_range = _range([x for x, _ in points]), _range([y for _, y in [*points, *ends]])

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = _share(x, x_range), _share(y, y_range)
        return left + PANEL[0] * across, top + PANEL[1] * (1 - up)

    yield f'<rect x="{left}" y="{top}" width="{PANEL[0]}" height="{PANEL[1]}" fill="none" stroke="{GRID}"/>'
    yield text_mark(left, top - 8, title)
    yield text_mark(left + PANEL[0], top - 8, f"b = {fit['exponent']:.2f}", color=COLOR, anchor="end")
    for value in (points[0][0], points[-1][0]):
        yield text_mark(place(value, y_range[0])[0], top + PANEL[1] + 16, _number(value), color=GREY, anchor="middle")
    for value in y_range:
        yield text_mark(left - 6, place(x_range[0], value)[1] + 4, _time(value), color=GREY, anchor="end", size=11)
    (x1, y1), (x2, y2) = (place(*end) for end in ends)
    yield f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{COLOR}" stroke-opacity="0.45"/>'
    for point in points:
        x, y = place(*point)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOR}"/>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and largest value, a little apart where they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low * 1.01 else (low / 1.5, high * 1.5)


def _share(value: float, limits: tuple[float, float]) -> float:
    return math.log(value / limits[0]) / math.log(limits[1] / limits[0])


def _number(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def _time(seconds: float) -> str:
    number, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"


def text_mark(
    x: float, y: float, text: str, *, color: str = "#111827", anchor: str = "start", size: int = 12, weight: int = 400
) -> str:
    """An SVG text; `y` is its base line."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{text}</text>'
    )
