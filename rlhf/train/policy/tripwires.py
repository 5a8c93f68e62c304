"""Tripwires: rules over the history of a run's figures that say when PPO goes wrong in a known way.

Pure: figures in, trips out. All that decides is in `TripwireState`, which checkpoints hold, so that a resumed run has
the same trips. What a trip does to the run is in `tripwire_monitor.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rlhf.config import tripwires as sections
from rlhf.config.tripwires import TripwiresSection, WireAction, WireSection
from rlhf.ops.line_fit import line_fit

MAX_ROLLBACKS = 2
RATE_FACTOR = 0.5
REARM_STEPS = 5  # iterations without its condition after which a wire that tripped may trip again
MIN_NORMS = 5  # norms seen before one can be called unusual
STRENGTH: tuple[WireAction, ...] = ("off", "warn", "lower_lr", "rollback", "stop")
WATCHED = (
    "objective/reward",
    "objective/reward_std",
    "objective/held_out_reward",
    "objective/held_out_reward_std",
    "objective/kl",
    "rollout/eos_rate",
    "value/explained_variance",
    "policy/clip_fraction",
    "policy/ratio_max",
    "policy/approx_kl",
    "grad_norm",
    "value/grad_norm",
    "text/distinct_2",
    "text/repeated_token_share",
    "text/hangul_share",
    "text/polite_share",
    "objective/reward_length_correlation",
)
Figures = Mapping[str, float]
Check = Callable[[Any, "TripwireState"], "Violation | None"]


@dataclass(frozen=True, slots=True)
class Trip:
    """One line of tripwires.jsonl; `text` says what was seen and where to look."""

    step: int
    wire: str
    value: float
    limit: float
    action: WireAction
    text: str


@dataclass(slots=True)
class TripwireState:
    """All that later decisions need, in types that JSON holds.

    first: figures of the first iteration; recent: of the last iterations, oldest first; held: iterations in a row for
    which a wire's condition has held; clear: iterations since it last held, of wires that have tripped; began: the step
    at which the first excursion of a tripped wire began; rate: factor on all learning rates; stopped_by: the wire that
    ended the run.
    """

    first: dict[str, float] = field(default_factory=dict)
    recent: list[dict[str, float]] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    clear: dict[str, int] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    rate: float = 1.0
    rollbacks: int = 0
    stopped_by: str = ""
    trips: list[dict[str, Any]] = field(default_factory=list)

    @property
    def now(self) -> dict[str, float]:
        return self.recent[-1]


@dataclass(frozen=True, slots=True)
class Violation:
    """A condition that holds now: the figure, its limit, and the message."""

    value: float
    limit: float
    text: str


class Tripwires:
    """Checks figures against the wires of a section; `state` goes into checkpoints."""

    def __init__(self, section: TripwiresSection, state: TripwireState) -> None:
        self.section, self.state = section, state
        self._kept = max(section.wireheading.window, section.grad_norm.window + 1)

    def observe(self, step: int, figures: Figures) -> list[Trip]:
        """Takes in one iteration and returns its trips.

        A wire that tripped can trip again after REARM_STEPS iterations without its condition. Figures that are not
        finite are ignored; a wire whose figure is missing cannot trip.
        """
        state = self.state
        seen = {name: float(figures[name]) for name in WATCHED if math.isfinite(figures.get(name, math.nan))}
        state.first = state.first or seen
        state.recent = [*state.recent, {**seen, "step": step}][-self._kept :]
        trips = []
        for name, wire in self.section.wires().items():
            finding = None if wire.action == "off" else CHECKS[name](wire, state)
            self._count(name, finding is not None)
            if finding is not None and state.held[name] >= wire.steps and name not in state.clear:
                state.clear[name] = 0
                state.began.setdefault(name, step - wire.steps + 1)
                trips.append(Trip(step, name, finding.value, finding.limit, self._action(wire.action), finding.text))
        state.trips += [asdict(trip) for trip in trips]
        return trips

    def _count(self, name: str, holds: bool) -> None:
        """Counts how long a wire's condition has held, or has been clear since it tripped."""
        state = self.state
        state.held[name] = state.held.get(name, 0) + 1 if holds else 0
        if name in state.clear:
            state.clear[name] = 0 if holds else state.clear[name] + 1
            if state.clear[name] >= REARM_STEPS:
                del state.clear[name]

    def _action(self, wanted: WireAction) -> WireAction:
        return "stop" if wanted == "rollback" and self.state.rollbacks >= MAX_ROLLBACKS else wanted


def strongest(trips: list[Trip]) -> Trip | None:
    """The trip with the strongest action; the first of several."""
    return max(trips, key=lambda trip: STRENGTH.index(trip.action), default=None)


def _above(figure: str, limit: str, text: str) -> Check:
    """A rule that a figure is above a limit of the wire, named by its field."""

    def check(wire: WireSection, state: TripwireState) -> Violation | None:
        return _violation(state.now.get(figure), getattr(wire, limit), text)

    return check


def _below_first(figure: str, text: str) -> Check:
    """A rule that a figure is below `min_share` of its first value."""

    def check(wire: Any, state: TripwireState) -> Violation | None:
        value, first = state.now.get(figure), state.first.get(figure)
        if value is None or first is None or value >= wire.min_share * first:
            return None
        return Violation(value, wire.min_share * first, text.format(value=value, first=first, share=wire.min_share))

    return check


def _violation(value: float | None, limit: float, text: str) -> Violation | None:
    if value is None or value <= limit:
        return None
    return Violation(value, limit, text.format(value=value, limit=limit))


def _wireheading(wire: sections.WireheadingWire, state: TripwireState) -> Violation | None:
    """Compares the gains of the training reward and the held-out reward, in deviations of the first iteration."""
    gains, trends = [], []
    for name in ("objective/reward", "objective/held_out_reward"):
        unit = state.first.get(f"{name}_std", 0.0)
        if not unit or name not in state.first or name not in state.now:
            return None
        gains.append((state.now[name] - state.first[name]) / unit)
        series = [figures[name] for figures in state.recent[-wire.window :] if name in figures]
        full = len(series) == wire.window
        trends.append(line_fit(range(len(series)), series).slope * (wire.window - 1) / unit if full else 0.0)
    gap = gains[0] - gains[1]
    look = "Read the answers that gained most by the first; stop, and train the reward model on them."
    if gap > wire.max_gap:
        text = f"The reward gained {gains[0]:+.2f} deviations, the held-out reward model sees {gains[1]:+.2f}. {look}"
        return Violation(gap, wire.max_gap, text)
    if trends[0] > wire.min_trend and trends[1] < -wire.min_trend:
        text = (
            f"Over {wire.window} iterations the reward rose by {trends[0]:.2f} deviations while the held-out reward "
            f"model's fell by {-trends[1]:.2f}. {look}"
        )
        return Violation(-trends[1], wire.min_trend, text)
    return None


def _length_slope(wire: sections.LengthSlopeWire, state: TripwireState) -> Violation | None:
    return _violation(
        abs(state.now.get("objective/reward_length_correlation", 0.0)),
        wire.max_correlation,
        "Score and answer length have correlation {value:.2f} (either sign), limit {limit:.2f}. Look at the curve of "
        "rollout/response_tokens; the reward may pay for length alone.",
    )


def _eos_rate(wire: sections.EosWire, state: TripwireState) -> Violation | None:
    rate = state.now.get("rollout/eos_rate")
    if rate is None or rate >= wire.min_rate:
        return None
    text = (
        f"Only {rate:.0%} of the answers end with EOS, limit {wire.min_rate:.0%}. Raise ppo.missing_eos_penalty or "
        "sampling.max_new_tokens, and check that stage 1 learned EOS."
    )
    return Violation(rate, wire.min_rate, text)


def _politeness(wire: sections.PolitenessWire, state: TripwireState) -> Violation | None:
    now, first = state.now.get("text/polite_share"), state.first.get("text/polite_share")
    if now is None or first is None or abs(now - first) <= wire.max_drift:
        return None
    text = (
        f"Polite sentences went from {first:.0%} to {now:.0%}, a drift beyond {wire.max_drift:.2f}. Where the reward "
        "is meant to teach this, raise tripwires.politeness.max_drift; otherwise read the reward model's card."
    )
    return Violation(abs(now - first), wire.max_drift, text)


def _ratio(wire: sections.RatioWire, state: TripwireState) -> Violation | None:
    limits = (
        ("policy/approx_kl", wire.max_approx_kl, "One iteration moved the policy by {value:.3g} nats per token"),
        ("policy/ratio_max", wire.max_ratio, "One iteration made a token {value:.3g} times as likely"),
        ("policy/clip_fraction", wire.max_clip_fraction, "{value:.0%} of the tokens were clipped"),
    )
    for name, limit, text in limits:
        finding = _violation(state.now.get(name), limit, f"{text}, limit {{limit:.3g}}. Lower train.lr or ppo.epochs.")
        if finding:
            return finding
    return None


def _grad_norm(wire: sections.GradNormWire, state: TripwireState) -> Violation | None:
    """Compares each norm with the median of those before it."""
    for name, key in (("grad_norm", "train.lr"), ("value/grad_norm", "critic.lr")):
        before = [figures[name] for figures in state.recent[:-1][-wire.window :] if name in figures]
        if len(before) < min(MIN_NORMS, wire.window) or name not in state.now:
            continue
        usual = median(before)
        finding = _violation(
            state.now[name],
            wire.max_factor * usual,
            f"{name} is {{value:.3g}}, over {wire.max_factor:.3g} times its running median {usual:.3g}. Look at this "
            f"iteration's answers and scores; lower {key}.",
        )
        if finding:
            return finding
    return None


def _critic(wire: sections.CriticWire, state: TripwireState) -> Violation | None:
    value = state.now.get("value/explained_variance")
    if value is None or value >= wire.min_explained_variance or state.now["step"] <= wire.warmup_steps:
        return None
    text = (
        f"The critic explains {value:.2f} of the variance of returns, below {wire.min_explained_variance:.2f}: worse "
        "than their mean would. Look at value/loss; raise critic.lr or warm the critic up longer."
    )
    return Violation(value, wire.min_explained_variance, text)


CHECKS: dict[str, Check] = {
    "kl": _above(
        "objective/kl",
        "max_nats",
        "KL to the reference is {value:.3g} nats per sequence, limit {limit:.3g}. Read the newest answers; raise "
        "ppo.kl_coefficient or set ppo.kl_target.",
    ),
    "wireheading": _wireheading,
    "length_slope": _length_slope,
    "diversity": _below_first(
        "text/distinct_2",
        "Only {value:.3f} of all word pairs are distinct, below {share:.0%} of the first iteration's {first:.3f}. Look "
        "for one phrase in all answers; raise ppo.kl_coefficient or lower train.lr.",
    ),
    "repetition": _above(
        "text/repeated_token_share",
        "max_share",
        "{value:.0%} of the words repeat one of the 8 before them, limit {limit:.0%}. Read the longest answers; the "
        " reward may pay for repetition (see the probe `twice` of its card).",
    ),
    "eos_rate": _eos_rate,
    "hangul": _below_first(
        "text/hangul_share",
        "{value:.0%} of the letters are Hangul, below {share:.0%} of the first iteration's {first:.0%}. Read the "
        "newest answers for another script or broken characters.",
    ),
    "politeness": _politeness,
    "ratio": _ratio,
    "grad_norm": _grad_norm,
    "critic": _critic,
    "reward_variance": _below_first(
        "objective/reward_std",
        "The standard deviation of scores is {value:.3g}, below {share:.0%} of the first iteration's {first:.3g}: all "
        "answers score the same and nothing is left to learn. Read the newest answers for one phrase in all of them.",
    ),
}
