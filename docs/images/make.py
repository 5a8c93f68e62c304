"""Draws the pictures of the READMEs from the figures in docs/figures: quickstart.svg and quickstart.ko.svg.

python docs/images/make.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FIGURES = FOLDER.parent / "figures" / "quickstart.json"
WIDTH, TOP, ROW, LEFT, RIGHT = 760, 96, 54, 236, 700
COLORS = ("#2563eb", "#d97706")
MEASURES = {
    "polite": ("sentences in polite register", "존댓말 문장"),
    "rude": ("answers with a rude word", "무례한 말이 든 답변"),
    "distinct2": ("distinct-2", "distinct-2"),
    "eos": ("answers that end with EOS", "EOS로 끝난 답변"),
}
TEXTS = {
    "en": {
        "title": "What PPO changes: SFT model to PPO model",
        "caption": "{prompts} held-out prompts, 4 answers each, seed 17, shares from 0 to 1; measured {date}",
        "before": "SFT",
        "after": "PPO",
    },
    "ko": {
        "title": "PPO 전후 비교: SFT 모델에서 PPO 모델로",
        "caption": "평가용 프롬프트 {prompts}개, 답변 4개씩, 시드 17, 비율 0~1, {date} 측정",
        "before": "SFT",
        "after": "PPO",
    },
}
Column = Mapping[str, Any]


def picture(figures: Mapping[str, Any], language: str) -> str:
    """One SVG: a line of four measures, each from its value before PPO (ring) to its value after (dot)."""
    words, columns = TEXTS[language], figures["columns"]
    height = TOP + ROW * len(MEASURES) + 40
    caption = words["caption"].format(prompts=columns[0]["summary"]["ppo"]["num_prompts"], date=figures["measured"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{words["title"]}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(20, 30, words["title"], size=17, weight=600),
        _text(20, 50, caption, color="#6b7280", size=12),
        *_legend(columns, words),
        *_axis(height - 30),
    ]
    for number, (key, names) in enumerate(MEASURES.items()):
        parts += _measure(TOP + ROW * number, names[0 if language == "en" else 1], key, columns)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(columns: list[Column], words: Mapping[str, str]) -> Iterator[str]:
    place = 20
    for color, column in zip(COLORS, columns, strict=True):
        yield f'<rect x="{place}" y="63" width="12" height="12" rx="2" fill="{color}"/>'
        yield _text(place + 18, 74, column["command"])
        place += 190
    yield f'<circle cx="{place + 6}" cy="69" r="5" fill="#ffffff" stroke="#374151" stroke-width="2"/>'
    yield _text(place + 18, 74, words["before"])
    yield f'<circle cx="{place + 66}" cy="69" r="6" fill="#374151"/>'
    yield _text(place + 78, 74, words["after"])


def _axis(bottom: float) -> Iterator[str]:
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = _across(value)
        yield f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}" stroke="#e5e7eb"/>'
        yield _text(at, bottom + 18, f"{value:g}", color="#6b7280", anchor="middle")


def _measure(top: float, name: str, key: str, columns: list[Column]) -> Iterator[str]:
    yield _text(LEFT - 16, top + 31, name, anchor="end")
    for number, (color, column) in enumerate(zip(COLORS, columns, strict=True)):
        ppo, level = column["summary"]["ppo"], top + 16 + 22 * number
        before, after = ppo["before"][key], ppo["after"][key]
        start, end = _across(before), _across(after)
        yield (
            f'<line x1="{start:.1f}" y1="{level}" x2="{end:.1f}" y2="{level}" stroke="{color}" stroke-width="3" '
            'stroke-opacity="0.45"/>'
        )
        yield f'<circle cx="{start:.1f}" cy="{level}" r="5" fill="#ffffff" stroke="{color}" stroke-width="2"/>'
        yield f'<circle cx="{end:.1f}" cy="{level}" r="6" fill="{color}"/>'
        beside = max(start, end)
        crowded = beside > _across(0.8)
        yield _text(
            min(start, end) - 12 if crowded else beside + 12,
            level + 4,
            f"{before:.3f} → {after:.3f}",
            color=color,
            anchor="end" if crowded else "start",
            size=12,
        )


def _across(value: float) -> float:
    return LEFT + (RIGHT - LEFT) * value


def _text(
    x: float, y: float, text: str, *, color: str = "#111827", anchor: str = "start", size: int = 13, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{text}</text>'
    )


def drawn() -> dict[Path, str]:
    """Every picture by its path."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return {
        FOLDER / "quickstart.svg": picture(figures, "en"),
        FOLDER / "quickstart.ko.svg": picture(figures, "ko"),
    }


if __name__ == "__main__":
    for path, text in drawn().items():
        path.write_text(text, encoding="utf-8")
