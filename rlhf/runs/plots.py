"""Curves of runs, and the policy between best-of-n points."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml
from markupsafe import Markup

from rlhf.config.metric_names import metric_of
from rlhf.html.plots import BLUE, GREY, LINE, RED, figure, svg
from rlhf.html.words import Words

Row = Mapping[str, Any]
Series = tuple[list[float], list[float]]  # steps, values
KL = "objective/kl"
MAX_POINTS = 300  # of one curve; longer ones are averaged, or the page would take megabytes
MAX_TRAJECTORY = 60  # points of the policy's way from the reference; single iterations are noise
FEW_POINTS = 30  # a curve with at most as many shows each as a dot
COLOURS = (BLUE, "#c98a1b", "#23735a", "#7a4d8f", "#5a6473", "#b0567a")
WIRE_METRICS = {
    "kl": r"objective/kl",
    "wireheading": r"objective/(held_out_)?reward",
    "length_slope": r"objective/reward_length_correlation|rollout/response_tokens",
    "diversity": r"text/distinct_2",
    "repetition": r"text/repeated_token_share",
    "eos_rate": r"rollout/eos_rate",
    "hangul": r"text/(hangul|polite)_share",
    "politeness": r"text/(hangul|polite)_share",
    "ratio": r"policy/(ratio_max|clip_fraction|approx_kl)",
    "grad_norm": r"(value/)?grad_norm",
    "critic": r"value/explained_variance",
    "reward_variance": r"objective/reward_std",
}


class Panel(NamedTuple):
    """Metrics drawn over one another: those whose whole name matches. `caption` says what to look for; `first` lists
    the stages whose page shows the plot unfolded."""

    title: Words
    metrics: str
    caption: Words
    first: tuple[str, ...]

    def among(self, names: Iterable[str]) -> list[str]:
        """The panel's metrics among `names`, sorted. Of a single source there are none: the whole says the same."""
        found = sorted(name for name in names if re.fullmatch(self.metrics, name))
        by_source = [name for name in found if (metric := metric_of(name)) and metric.is_family]
        return found if len(found) > bool(by_source) else []


class Curve(NamedTuple):
    """A line of a plot; without a label it has no entry in the legend. `lost` is what a rollback took back."""

    series: Series
    colour: str
    label: str | None = None
    dash: str = "-"
    lost: Series | None = None


@cache
def panels() -> tuple[Panel, ...]:
    """Every panel, in the order of the page."""
    entries = yaml.safe_load((files("rlhf.runs") / "panels.yaml").read_text(encoding="utf-8"))
    return tuple(
        Panel(Words(**each["title"]), each["metrics"], Words(**each["caption"]), tuple(each.get("first", ())))
        for each in entries
    )


def panel_plots(metrics: Sequence[Row], trips: Sequence[Row], abandoned: Sequence[Row]) -> list[tuple[Panel, Markup]]:
    """Every panel that has something to draw. What a rollback took back is dotted; a trip is a line in its panels."""
    curves, lost = curves_of(metrics), curves_of(abandoned)
    drawn = []
    for panel in panels():
        if found := panel.among(curves):
            lines = [
                Curve(
                    curves[name], COLOURS[number % len(COLOURS)], name if len(found) > 1 else None, "-", lost.get(name)
                )
                for number, name in enumerate(found)
            ]
            marks = [trip for trip in trips if any(re.fullmatch(WIRE_METRICS[trip["wire"]], name) for name in found)]
            drawn.append((panel, curves_plot(lines, marks)))
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
    return {
        name: (_thinned(steps, MAX_POINTS), _thinned(values, MAX_POINTS)) for name, (steps, values) in found.items()
    }


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Means of neighbours, so that at most `most` are left."""
    size = -(-len(values) // most)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def curves_plot(curves: Sequence[Curve], trips: Sequence[Row] = ()) -> Markup:
    """Curves over steps; every trip is a vertical line with the name of its wire."""
    with figure(1.9) as (drawn, axes):
        for each in curves:
            dots = {"marker": "o", "markersize": 4} if len(each.series[0]) <= FEW_POINTS else {}
            axes.plot(*each.series, color=each.colour, linewidth=1.6, linestyle=each.dash, label=each.label, **dots)
            if each.lost:
                axes.plot(*each.lost, color=each.colour, linewidth=1, linestyle=":", alpha=0.7)
        for trip in trips:
            axes.axvline(trip["step"], color=RED, linewidth=1, linestyle="--")
            axes.annotate(
                trip["wire"], (trip["step"], 0.98), xycoords=("data", "axes fraction"), color=RED, fontsize=8,
                rotation=90, ha="right", va="top",
            )  # fmt: skip
        axes.margins(x=0.02)
        axes.locator_params(axis="y", nbins=5)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        if named := sum(each.label is not None for each in curves):
            columns = 2 if named <= 4 else 3
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, frameon=False, fontsize=8)
        return svg(drawn)


def control_plot(control: Row, metrics: Sequence[Row]) -> Markup:
    """Reward against KL: the reference at 0, its best-of-n, the policy, and the policy's trajectory."""
    with figure(3.6) as (drawn, axes):
        points, name = trajectory(metrics)
        if points:
            kls, rewards = zip(*points, strict=True)
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
        axes.set_xlabel("KL to the SFT model, nats per sequence")
        axes.set_ylabel("score")
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8)
        return svg(drawn)


def _arm(axes: Any, arm: Row, colour: str, label: str | None) -> None:
    axes.plot([arm["kl"]] * 2, [arm["low"], arm["high"]], color=colour, linewidth=2, zorder=2)
    axes.plot(arm["kl"], arm["mean"], "o", color=colour, markersize=6, zorder=3, label=label)


def trajectory(metrics: Sequence[Row]) -> tuple[list[tuple[float, float]], str]:
    """(KL, score) over training, and its label: on held-out prompts where those were scored twice or more, else on
    training prompts."""
    for name, label in (
        ("eval/reward", "PPO in training, held-out prompts"),
        ("objective/reward", "PPO in training, training prompts"),
    ):
        rows = [row for row in metrics if name in row and KL in row]
        if len(rows) > 1:
            kls, scores = (_thinned([row[key] for row in rows], MAX_TRAJECTORY) for key in (KL, name))
            return list(zip(kls, scores, strict=True)), label
    return [], ""
