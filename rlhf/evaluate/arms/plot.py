"""Quality against distance: every arm's score by the judge over its KL to the SFT model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from markupsafe import Markup

from rlhf.html.plots import BLUE, GREY, LINE, RED, figure, svg
from rlhf.html.words import Words

KL = Words("SFT 모델까지의 KL (답변당 nats)", "KL to the SFT model, nats per sequence")
COLOURS = (GREY, BLUE, RED, "#3b7d4f", "#7a5195", "#a98a1b", "#2b9aa0")  # the SFT model is the first
SCORE = Words("심사 보상 모델의 점수", "score of the judge")


def quality_plot(arms: Mapping[str, Mapping[str, Any]], language: str) -> Markup:
    """A dot per finished arm with both its 95 % intervals, in a colour of its own."""
    with figure(3.4) as (drawn, axes):
        judged = {name: arm for name, arm in arms.items() if "reward" in arm}
        for (name, arm), colour in zip(judged.items(), cycle(COLOURS)):
            low, high = arm["interval"]
            left, right = arm["kl_interval"]
            axes.plot([arm["kl"]] * 2, [low, high], color=colour, linewidth=1.6)
            axes.plot([left, right], [arm["reward"]] * 2, color=colour, linewidth=1.6)
            axes.plot(arm["kl"], arm["reward"], "o", color=colour, markersize=6, label=name)
        axes.margins(x=0.12, y=0.12)
        axes.set_xlabel(getattr(KL, language))
        axes.set_ylabel(getattr(SCORE, language))
        axes.grid(color=LINE, linewidth=0.6)
        axes.legend(frameon=False, fontsize=9)
        return svg(drawn)
