"""Draws the pictures of the pages from the figures in docs/figures, in both languages: quickstart, scaling, case-study.

python docs/images/make.py
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from case_study_picture import case_study_picture
from scaling_picture import scaling_picture, text_mark

FOLDER = Path(__file__).parent
FIGURES = FOLDER.parent / "figures" / "quickstart.json"
SCALING = FOLDER.parent / "figures" / "scaling.json"
CASE_STUDY = FOLDER.parent / "figures" / "case-study.json"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 736, 100, 368
COLORS = ("#2563eb", "#d97706", "#059669")
_text = partial(text_mark, size=13)
TEXTS = {
    "en": {
        "title": "What PPO pays for its reward",
        "caption": "a line per run, a point per iteration; squares: the best of n answers of the SFT model; {date}",
        "x": "KL to the SFT model, nats per answer",
        "y": "mean reward above the SFT model",
        "best": "best of {n}",
    },
    "ko": {
        "title": "PPO가 보상을 얻으며 SFT 모델에서 멀어진 정도",
        "caption": "선은 실행, 점은 이터레이션, 네모는 SFT 모델의 답변 n개 중 최고(best-of-n), {date} 측정",
        "x": "SFT 모델과의 KL, 답변당 nats",
        "y": "SFT 모델 대비 평균 보상",
        "best": "{n}개 중 최고",
    },
}
Point = tuple[float, float]


class Axes(NamedTuple):
    """The largest KL and the range of rewards shown."""

    kl: int
    low: int
    high: int

    def place(self, kl: float, reward: float) -> Point:
        return LEFT + (RIGHT - LEFT) * kl / self.kl, BOTTOM - (BOTTOM - TOP) * (reward - self.low) / (
            self.high - self.low
        )


def picture(figures: Mapping[str, Any], language: str) -> str:
    """One SVG: what each run gains in reward over its KL to the SFT model, and best-of-n of that model."""
    words, columns = TEXTS[language], figures["columns"]
    runs = [(number, run["trace"]) for number, column in enumerate(columns) for run in column["runs"]]
    axes = _axes([point for _, trace in runs for point in [*_iterations(trace), *_best_of(trace).values()]])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{words["title"]}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(20, 28, words["title"], size=17, weight=600),
        _text(20, 48, words["caption"].format(date=figures["measured"]), color="#6b7280", size=12),
        *_legend([column["command"] for column in columns]),
        *_grid(axes, words),
    ]
    for number, trace in runs:
        parts += _run(axes, trace, COLORS[number])
    last = runs[0][1]
    for n, point in _best_of(last).items():
        x, y = axes.place(*point)
        parts.append(_text(x + 9, y + 4, words["best"].format(n=n), color=COLORS[0], size=12))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _iterations(trace: Mapping[str, Any]) -> list[Point]:
    return [(max(kl, 0.0), reward - trace["sft"]) for kl, reward in trace["iterations"]]


def _best_of(trace: Mapping[str, Any]) -> dict[int, Point]:
    return {n: (kl, mean - trace["sft"]) for n, kl, mean in trace["best_of"]}


def _axes(points: Sequence[Point]) -> Axes:
    rewards = [reward for _, reward in points]
    return Axes(math.ceil(max(kl for kl, _ in points)), math.floor(min(rewards)), math.ceil(max(rewards)))


def _legend(commands: Sequence[str]) -> Iterator[str]:
    for number, (color, command) in enumerate(zip(COLORS, commands, strict=False)):
        place = 20 + 230 * number
        yield f'<rect x="{place}" y="63" width="12" height="12" rx="2" fill="{color}"/>'
        yield _text(place + 18, 74, command)


def _grid(axes: Axes, words: Mapping[str, str]) -> Iterator[str]:
    for kl in range(axes.kl + 1):
        x, _ = axes.place(kl, 0)
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}" stroke="#e5e7eb"/>'
        yield _text(x, BOTTOM + 18, f"{kl}", color="#6b7280", anchor="middle")
    for reward in range(axes.low, axes.high + 1):
        _, y = axes.place(0, reward)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        yield _text(LEFT - 8, y + 4, f"{reward}", color="#6b7280", anchor="end")
    yield _text((LEFT + RIGHT) / 2, BOTTOM + 40, words["x"], anchor="middle")
    yield _text(LEFT, TOP - 8, words["y"])


def _run(axes: Axes, trace: Mapping[str, Any], color: str) -> Iterator[str]:
    places = [axes.place(*point) for point in _iterations(trace)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.5" stroke-opacity="0.45"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>'
    for point in _best_of(trace).values():
        x, y = axes.place(*point)
        yield (
            f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="#ffffff" stroke="{color}" '
            'stroke-width="2"/>'
        )


def drawn() -> dict[Path, str]:
    """Every picture by its path."""
    made = {}
    pictures = (
        ("quickstart", FIGURES, picture),
        ("scaling", SCALING, scaling_picture),
        ("case-study", CASE_STUDY, case_study_picture),
    )
    for name, source, draw in pictures:
        if source.is_file():
            figures = json.loads(source.read_text(encoding="utf-8"))
            made |= {FOLDER / f"{name}.svg": draw(figures, "en"), FOLDER / f"{name}.ko.svg": draw(figures, "ko")}
    return made


if __name__ == "__main__":
    for path, text in drawn().items():
        path.write_text(text, encoding="utf-8")
