"""Curves of a run, and the policy between best-of-n points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlhf.html.plots import BLUE, GREY, LINE, RED, figure, svg

Row = Mapping[str, Any]
MAX_POINTS = 300  # of one curve; longer ones are averaged, or the page would take megabytes
COLOURS = (BLUE, "#c98a1b", "#23735a", "#7a4d8f", "#5a6473", "#b0567a")


class Panel(NamedTuple):
    """Metrics drawn over one another: those whose whole name matches. `caption` says what to look for."""

    title: str
    names: str
    caption: str


PANELS = (
    Panel("Reward", r"reward|eval_reward", "Reward units: training prompts, and held-out ones (eval_reward)."),
    Panel("Held-out reward model", r"held_out_reward", "Should rise with the reward; falling alone is reward hacking."),
    Panel("Reward by source", r"reward/.+", "Each source before its weight."),
    Panel("Deviation of scores", r"(held_out_)?reward_std", "At 0 nothing is left to learn from."),
    Panel("KL to the reference", r"kl", "Nats a sequence: how far the policy has gone."),
    Panel("KL coefficient", r"kl_coefficient", "Weight of the KL penalty."),
    Panel("By source of prompts: reward", r"by_source/.+/reward", "Reward units."),
    Panel("By source of prompts: KL", r"by_source/.+/kl", "Nats a sequence."),
    Panel("Loss", r"loss|eval_loss|eval_loss_before|(eval_)?loss/.+", "Nats a token in stage 1."),
    Panel("Accuracy", r"accuracy|eval_accuracy", "Share of pairs in the right order."),
    Panel("Policy loss", r"policy_loss", "Hovers near 0; its level means little."),
    Panel("Value loss", r"value_loss|ptx_loss", "Reward units squared (values)."),
    Panel("Explained variance", r"explained_variance", "Below 0 the critic is worse than a constant."),
    Panel("Clipped tokens", r"clip_fraction|value_clip_fraction", "Share of tokens; above .3 an update goes too far."),
    Panel("Step of the policy", r"approx_kl", "Nats a token, old to new policy within an iteration."),
    Panel("Largest ratio", r"ratio_max", "Of one token's probabilities, new to old."),
    Panel("Gradient norms", r"(critic_|ptx_)?grad_norm", "Before clipping."),
    Panel("Entropy", r"entropy", "Nats a token."),
    Panel("Length of answers", r"response_tokens", "Tokens, EOS included."),
    Panel("Length in characters", r"length_chars", "Mean of an answer."),
    Panel("Score and length", r"reward_length_correlation", "Correlation; far from 0 the reward follows length."),
    Panel("Answers that end", r"(eval_)?eos_rate", "Share with EOS."),
    Panel("Variety", r"distinct_[12]", "Unique words and word pairs, as a share of all."),
    Panel("Repetition", r"repeated_token_share", "Words that equal one of the 8 before them."),
    Panel("Script and register", r"hangul_share|polite_share", "Share of letters, and of sentences."),
    Panel("Learning rate", r"(critic_)?lr", "After warm-up, decay and tripwires."),
)
WIRE_METRICS = {
    "kl": r"kl",
    "wireheading": r"reward|held_out_reward",
    "length_slope": r"reward_length_correlation|response_tokens",
    "diversity": r"distinct_2",
    "repetition": r"repeated_token_share",
    "eos_rate": r"eos_rate",
    "hangul": r"hangul_share|polite_share",
    "politeness": r"hangul_share|polite_share",
    "ratio": r"ratio_max|clip_fraction|approx_kl",
    "grad_norm": r"grad_norm|critic_grad_norm",
    "critic": r"explained_variance",
    "reward_variance": r"reward_std",
}
Series = tuple[list[float], list[float]]


def panel_plots(metrics: Sequence[Row], trips: Sequence[Row], abandoned: Sequence[Row]) -> list[tuple[Panel, str]]:
    """Every panel that has something to draw. What a rollback took back is dashed; a trip is a line in its panels."""
    curves, lost = curves_of(metrics), curves_of(abandoned)
    drawn = []
    for panel in PANELS:
        found = {name: each for name, each in curves.items() if re.fullmatch(panel.names, name)}
        if len(found) > any("/" in name for name in found):  # of a single source the whole says the same
            marks = [trip for trip in trips if any(re.fullmatch(WIRE_METRICS[trip["wire"]], name) for name in found)]
            drawn.append((panel, _curves(found, {name: lost[name] for name in found if name in lost}, marks)))
    return drawn


def curves_of(metrics: Sequence[Row]) -> dict[str, Series]:
    """(steps, values) of every number logged, by name; averaged down to MAX_POINTS."""
    found: dict[str, Series] = {}
    for row in metrics:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                steps, values = found.setdefault(name, ([], []))
                steps.append(float(row["step"]))
                values.append(float(value))
    return {name: (_thinned(steps), _thinned(values)) for name, (steps, values) in found.items()}


def _thinned(values: list[float]) -> list[float]:
    """Means of neighbours, so that at most MAX_POINTS are left."""
    size = -(-len(values) // MAX_POINTS)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def _curves(found: Mapping[str, Series], lost: Mapping[str, Series], trips: Sequence[Row]) -> str:
    with figure(1.9) as (drawn, axes):
        for number, (name, (steps, values)) in enumerate(sorted(found.items())):
            colour = COLOURS[number % len(COLOURS)]
            sparse = {"marker": "o", "markersize": 4} if len(steps) <= 30 else {}
            axes.plot(steps, values, color=colour, linewidth=1.6, label=name, **sparse)
            if name in lost:
                axes.plot(*lost[name], color=colour, linewidth=1, linestyle=":", alpha=0.7)
        for trip in trips:
            axes.axvline(trip["step"], color=RED, linewidth=1, linestyle="--")
            axes.annotate(
                trip["wire"], (trip["step"], 0.98), xycoords=("data", "axes fraction"), color=RED, fontsize=8,
                rotation=90, ha="right", va="top",
            )  # fmt: skip
        axes.margins(x=0.02)
        axes.locator_params(axis="y", nbins=5)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        if len(found) > 1:
            columns = 2 if len(found) <= 4 else 3
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=8)
        return svg(drawn)


def control_plot(control: Row, metrics: Sequence[Row]) -> str:
    """Reward against KL: the reference at 0, best-of-n of it, the policy, and the way the policy took."""
    with figure(3.6) as (drawn, axes):
        way, name = trajectory(metrics)
        if way:
            kls, rewards = zip(*way, strict=True)
            axes.plot(kls, rewards, color="#d9a184", linewidth=1.5, marker="o", markersize=3, zorder=1, label=name)
        arms = control["best_of_n"]
        axes.plot(
            [0, *(arm["kl"] for arm in arms)],
            [control["reference"]["mean"], *(arm["mean"] for arm in arms)],
            color=GREY, linewidth=1, linestyle="--", zorder=1,
        )  # fmt: skip
        _arm(axes, control["reference"], GREY, "SFT model")
        for number, arm in enumerate(arms):
            _arm(axes, arm, BLUE, "best-of-n of the SFT model" if number == 0 else None)
            axes.annotate(
                f"n = {arm['n']}", (arm["kl"], arm["mean"]), xytext=(5, -11), textcoords="offset points", fontsize=8
            )
        _arm(axes, control["policy"], RED, "PPO")
        axes.set_xlabel("KL to the SFT model, nats a sequence")
        axes.set_ylabel("score")
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8)
        return svg(drawn)


def _arm(axes: Any, arm: Row, colour: str, label: str | None) -> None:
    axes.plot([arm["kl"]] * 2, [arm["low"], arm["high"]], color=colour, linewidth=2, zorder=2)
    axes.plot(arm["kl"], arm["mean"], "o", color=colour, markersize=6, zorder=3, label=label)


def trajectory(metrics: Sequence[Row]) -> tuple[list[tuple[float, float]], str]:
    """(KL, score) over training, and what they are of: held-out prompts where they were scored twice or more."""
    for name, label in (("eval_reward", "PPO on the way, held-out"), ("reward", "PPO on the way, training prompts")):
        points = [(row["kl"], row[name]) for row in metrics if name in row and "kl" in row]
        if len(points) > 1:
            return [(sum(kls) / len(kls), sum(rewards) / len(rewards)) for kls, rewards in _grouped(points)], label
    return [], ""


def _grouped(points: list[tuple[float, float]]) -> list[tuple[list[float], list[float]]]:
    """Neighbours together, at most 60 groups: single iterations are noise."""
    size = -(-len(points) // 60)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [([kl for kl, _ in part], [reward for _, reward in part]) for part in parts]
