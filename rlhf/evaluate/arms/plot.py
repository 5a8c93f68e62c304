"""Quality against distance: every arm's score by the judge over its KL to the SFT model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from rlhf.html.plots import BLUE, LINE, figure, svg
from rlhf.html.words import Words

KL = Words("SFT 모델까지의 KL (답변당 nats)", "KL to the SFT model, nats per sequence")
SCORE = Words("심사 보상 모델의 점수", "score of the judge")


def quality_plot(arms: Mapping[str, Mapping[str, Any]], language: str) -> Markup:
    """A dot per finished arm with both its 95 % intervals, named beside it."""
    with figure(3.4) as (drawn, axes):
        for name, arm in arms.items():
            if "reward" not in arm:
                continue
            low, high = arm["interval"]
            left, right = arm["kl_interval"]
            axes.plot([arm["kl"]] * 2, [low, high], color=BLUE, linewidth=1.6)
            axes.plot([left, right], [arm["reward"]] * 2, color=BLUE, linewidth=1.6)
            axes.plot(arm["kl"], arm["reward"], "o", color=BLUE, markersize=6)
            axes.annotate(name, (arm["kl"], arm["reward"]), xytext=(6, 6), textcoords="offset points", fontsize=9)
        axes.margins(x=0.12, y=0.12)
        axes.set_xlabel(getattr(KL, language))
        axes.set_ylabel(getattr(SCORE, language))
        axes.grid(color=LINE, linewidth=0.6)
        return svg(drawn)
