"""No key of a tripwire is accepted and ignored: another value makes the same run trip another way."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.config.tripwires import TripwiresSection
from rlhf.train.policy.tripwires import Tripwires, TripwireState

REWARD, HELD_OUT = "objective/reward", "objective/held_out_reward"
HEALTHY = {
    REWARD: 0.0,
    "objective/reward_std": 2.0,
    "objective/kl": 1.0,
    "rollout/eos_rate": 1.0,
    "value/explained_variance": 0.5,
    "policy/clip_fraction": 0.1,
    "policy/ratio_max": 2.0,
    "policy/approx_kl": 0.01,
    "grad_norm": 1.0,
    "value/grad_norm": 1.0,
    "text/distinct_2": 1.0,
    "text/repeated_token_share": 0.0,
    "text/hangul_share": 1.0,
    "text/polite_share": 0.5,
    "objective/reward_length_correlation": 0.0,
    HELD_OUT: 0.0,
    "objective/held_out_reward_std": 1.0,
}
SICK: dict[str, dict[str, float]] = {
    "kl": {"objective/kl": 25.0},
    "length_slope": {"objective/reward_length_correlation": -0.8},
    "diversity": {"text/distinct_2": 0.4},
    "repetition": {"text/repeated_token_share": 0.4},
    "eos_rate": {"rollout/eos_rate": 0.4},
    "hangul": {"text/hangul_share": 0.7},
    "politeness": {"text/polite_share": 0.9},
    "critic": {"value/explained_variance": -1.0},
    "reward_variance": {"objective/reward_std": 0.1},
}
DOUBLED = {"grad_norm": 2.0}
OPPOSED = [{REWARD: 0.1 * step, HELD_OUT: -0.2 * step} for step in range(12)]
GAINED = [
    {},
    *[{REWARD: 4.0}] * 6,
]  # two deviations of the first iteration, of which the other model sees none
# wire.key -> (history after a healthy first iteration, one value, another)
KEYS: dict[str, tuple[list[dict[str, float]], Any, Any]] = {
    **{f"{wire}.steps": ([{}, *[row] * 6], 1, 5) for wire, row in SICK.items() if wire != "critic"},
    **{f"{wire}.action": ([{}, *[row] * 16], "off", "warn") for wire, row in SICK.items()},
    "kl.max_nats": ([{}, *[SICK["kl"]] * 6], 24.0, 26.0),
    "length_slope.max_correlation": ([{}, *[SICK["length_slope"]] * 6], 0.75, 0.85),
    "diversity.min_share": ([{}, *[SICK["diversity"]] * 6], 0.45, 0.35),
    "repetition.max_share": ([{}, *[SICK["repetition"]] * 6], 0.35, 0.45),
    "eos_rate.min_rate": ([{}, *[SICK["eos_rate"]] * 6], 0.45, 0.35),
    "hangul.min_share": ([{}, *[SICK["hangul"]] * 6], 0.75, 0.65),
    "politeness.max_drift": ([{}, *[SICK["politeness"]] * 6], 0.35, 0.45),
    "reward_variance.min_share": ([{}, *[SICK["reward_variance"]] * 6], 0.1, 0.01),
    "critic.min_explained_variance": ([SICK["critic"]] * 20, -0.5, -1.5),
    "critic.warmup_steps": ([SICK["critic"]] * 20, 2, 30),
    "critic.steps": ([SICK["critic"]] * 20, 1, 30),
    "ratio.action": ([{"policy/approx_kl": 0.3}], "off", "warn"),
    "ratio.steps": ([{"policy/approx_kl": 0.3}], 1, 2),
    "ratio.max_ratio": ([{"policy/ratio_max": 60.0}], 55.0, 65.0),
    "ratio.max_clip_fraction": ([{"policy/clip_fraction": 0.4}], 0.35, 0.45),
    "ratio.max_approx_kl": ([{"policy/approx_kl": 0.3}], 0.25, 0.35),
    "grad_norm.action": ([*[{}] * 8, {"grad_norm": 20.0}], "off", "warn"),
    "grad_norm.steps": ([*[{}] * 8, {"grad_norm": 20.0}], 1, 2),
    "grad_norm.max_factor": ([*[{}] * 8, {"grad_norm": 20.0}], 15.0, 25.0),
    # medians of the last 3 (2, so that 15 is below 10 times it) and of the last 20 (1)
    "grad_norm.window": ([*[{}] * 10, *[DOUBLED] * 4, {"grad_norm": 15.0}], 3, 20),
    "wireheading.action": (OPPOSED, "off", "warn"),
    "wireheading.steps": (GAINED, 1, 20),
    "wireheading.window": (OPPOSED, 8, 20),
    "wireheading.min_trend": (OPPOSED, 0.25, 5.0),
    "wireheading.max_gap": (GAINED, 1.9, 2.1),
}


def trips(wire: str, key: str, value: Any, history: list[dict[str, float]]) -> list[tuple[int, str, float]]:
    section = TripwiresSection.model_validate({wire: {key: value}})
    if wire == "wireheading" and history is OPPOSED and key != "max_gap":
        section = TripwiresSection.model_validate({wire: {"max_gap": 100.0, key: value}})
    tripwires = Tripwires(section, TripwireState())
    found = [tripwires.observe(step, {**HEALTHY, **row}) for step, row in enumerate(history, start=1)]
    return [(trip.step, trip.wire, trip.limit) for step in found for trip in step if trip.wire == wire]


def test_every_key_of_every_wire_is_here():
    keys = {f"{name}.{key}" for name, wire in TripwiresSection().wires().items() for key in type(wire).model_fields}
    assert set(KEYS) == keys


@pytest.mark.parametrize("name", sorted(KEYS))
def test_another_value_of_a_wire_trips_another_way(name):
    history, one, other = KEYS[name]
    wire, key = name.split(".")
    assert trips(wire, key, one, history) != trips(wire, key, other, history)
    assert trips(wire, key, one, history) or trips(wire, key, other, history)
