"""case-study.svg: the curves of the three stages on a real pretrained model, one panel each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scaling_picture import text_mark

COLUMNS, PANEL, GAP, TOP, LEFT = 2, (300, 150), (70, 62), 92, 58
BLUE, ORANGE, GREY, GRID = "#2563eb", "#d97706", "#6b7280", "#e5e7eb"
SMOOTHED = 8  # points around each that a noisy curve is the mean of
Point = Sequence[float]


class Line(NamedTuple):
    """One curve of a panel: of which run, which metric, and whether single steps are too noisy to read."""

    stage: str
    metric: str
    noisy: bool = False


PANELS: tuple[tuple[str, tuple[Line, ...]], ...] = (
    ("sft", (Line("sft", "loss", True), Line("sft", "eval/loss"))),
    (
        "reward",
        (Line("reward", "reward_model/accuracy", True), Line("judge", "reward_model/accuracy", True)),
    ),
    ("score", (Line("ppo", "objective/reward"),)),
    ("kl", (Line("ppo", "objective/kl"),)),
)
TEXTS = {
    "en": {
        "title": "Three stages on Gemma 3 270M",
        "caption": "steps from left to right (stage 3: iterations); noisy curves are means over neighbours; {date}",
        "sft": ("stage 1, loss", ("training", "held out")),
        "reward": ("stage 2, accuracy in training", ("reward model", "second reward model")),
        "score": ("stage 3, mean reward", ("PPO",)),
        "kl": ("stage 3, KL to the SFT model, nats per answer", ("PPO",)),
    },
    "ko": {
        "title": "Gemma 3 270M의 세 단계",
        "caption": "가로축은 스텝(3단계는 이터레이션), 들쭉날쭉한 곡선은 이웃한 값의 평균, {date} 측정",
        "sft": ("1단계 손실", ("학습", "평가용 데이터")),
        "reward": ("2단계 학습 정확도", ("보상 모델", "두 번째 보상 모델")),
        "score": ("3단계 평균 보상", ("PPO",)),
        "kl": ("3단계 SFT 모델과의 KL, 답변당 nats", ("PPO",)),
    },
}


def case_study_picture(figures: Mapping[str, Any], language: str) -> str:
    """One SVG with four panels."""
    words = TEXTS[language]
    lines = -(-len(PANELS) // COLUMNS)
    width = LEFT + COLUMNS * (PANEL[0] + GAP[0])
    height = TOP + lines * (PANEL[1] + GAP[1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{words["title"]}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text_mark(20, 28, str(words["title"]), size=17, weight=600),
        text_mark(20, 48, str(words["caption"]).format(date=figures["measured"]), color=GREY),
    ]
    for number, (name, of_panel) in enumerate(PANELS):
        corner = (LEFT + number % COLUMNS * (PANEL[0] + GAP[0]), TOP + number // COLUMNS * (PANEL[1] + GAP[1]))
        title, names = words[name]
        curves = [_points(figures["curves"][line.stage][line.metric], noisy=line.noisy) for line in of_panel]
        parts += _panel(corner, title, names, curves)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _points(points: Sequence[Point], *, noisy: bool) -> list[tuple[float, float]]:
    reach = SMOOTHED // 2 if noisy else 0
    means = []
    for place, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, place - reach) : place + reach + 1]]
        means.append((step, sum(near) / len(near)))
    return means


def _panel(
    corner: tuple[int, int], title: str, names: Sequence[str], curves: Sequence[Sequence[tuple[float, float]]]
) -> Iterator[str]:
    left, top = corner
    values = [value for curve in curves for _, value in curve]
    low, high, last = min(values), max(values), max(step for curve in curves for step, _ in curve)
    first = min(step for curve in curves for step, _ in curve)
    span, length = (high - low) or 1.0, (last - first) or 1.0
    yield f'<rect x="{left}" y="{top}" width="{PANEL[0]}" height="{PANEL[1]}" fill="none" stroke="{GRID}"/>'
    yield text_mark(left, top - 8, title)
    for value, y in ((high, top), (low, top + PANEL[1])):
        yield text_mark(left - 6, y + 4, f"{value:.3g}", color=GREY, anchor="end", size=11)
    for step, x in ((first, left), (last, left + PANEL[0])):
        yield text_mark(x, top + PANEL[1] + 16, f"{step:,.0f}", color=GREY, anchor="middle", size=11)
    for number, (color, name, curve) in enumerate(zip((BLUE, ORANGE), names, curves, strict=False)):
        line = " ".join(
            f"{left + PANEL[0] * (step - first) / length:.1f},{top + PANEL[1] * (1 - (value - low) / span):.1f}"
            for step, value in curve
        )
        yield f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.8"/>'
        if len(names) > 1:
            yield text_mark(left + PANEL[0] - 8, top + 16 + 15 * number, name, color=color, anchor="end", size=11)
