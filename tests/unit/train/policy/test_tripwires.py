"""Each tripwire on hand-made histories: silent just inside its limit, tripped just outside."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rlhf.config.tripwires import TripwiresSection
from rlhf.train.policy.tripwires import CHECKS, Tripwires, TripwireState, strongest

REWARD, HELD_OUT = "objective/reward", "objective/held_out_reward"
CORRELATION = "objective/reward_length_correlation"
HEALTHY = {
    REWARD: 0.0,
    "objective/reward_std": 2.0,
    "objective/kl": 1.0,
    "rollout/eos_rate": 1.0,
    "value/explained_variance": 0.3,
    "policy/clip_fraction": 0.1,
    "policy/ratio_max": 2.0,
    "policy/approx_kl": 0.01,
    "grad_norm": 1.0,
    "value/grad_norm": 8.0,
    "text/distinct_2": 0.8,
    "text/repeated_token_share": 0.05,
    "text/hangul_share": 0.9,
    "text/polite_share": 0.6,
    CORRELATION: 0.1,
    HELD_OUT: 10.0,
    "objective/held_out_reward_std": 4.0,
}


def section(**wires: Any) -> TripwiresSection:
    return TripwiresSection.model_validate(wires)


def tripped(history: list[dict[str, float]], **wires: Any) -> list[tuple[int, str]]:
    """(step, wire) of every trip; each entry of `history` lays over healthy figures, steps count from 1."""
    wires = Tripwires(section(**wires), TripwireState())
    found = [wires.observe(step, {**HEALTHY, **row}) for step, row in enumerate(history, start=1)]
    return [(trip.step, trip.wire) for trips in found for trip in trips]


def test_every_wire_of_the_configuration_has_its_rule_and_health_trips_none() -> None:
    assert set(CHECKS) == set(TripwiresSection().wires())
    assert tripped([{}] * 30) == []


@pytest.mark.parametrize(
    ("wire", "inside", "outside", "steps"),
    [
        ("kl", {"objective/kl": 20.0}, {"objective/kl": 20.1}, 1),
        (
            "length_slope",
            {CORRELATION: 0.7},
            {CORRELATION: 0.71},
            3,
        ),
        (
            "length_slope",
            {CORRELATION: -0.7},
            {CORRELATION: -0.71},
            3,
        ),
        ("diversity", {"text/distinct_2": 0.4}, {"text/distinct_2": 0.39}, 2),  # half of .8
        ("repetition", {"text/repeated_token_share": 0.3}, {"text/repeated_token_share": 0.31}, 2),
        ("eos_rate", {"rollout/eos_rate": 0.5}, {"rollout/eos_rate": 0.49}, 2),
        ("hangul", {"text/hangul_share": 0.73}, {"text/hangul_share": 0.71}, 2),  # .8 of .9 is .72
        ("politeness", {"text/polite_share": 0.89}, {"text/polite_share": 0.91}, 2),  # .6 + .3
        ("politeness", {"text/polite_share": 0.31}, {"text/polite_share": 0.29}, 2),
        ("ratio", {"policy/ratio_max": 50.0}, {"policy/ratio_max": 50.1}, 1),
        ("ratio", {"policy/clip_fraction": 0.3}, {"policy/clip_fraction": 0.31}, 1),
        ("ratio", {"policy/approx_kl": 0.2}, {"policy/approx_kl": 0.21}, 1),
        ("reward_variance", {"objective/reward_std": 0.2}, {"objective/reward_std": 0.19}, 2),  # a tenth of 2
        (
            "wireheading",
            {REWARD: 2.9},
            {REWARD: 3.1},
            1,
        ),  # 1.5 deviations of 2 ahead of the other's 0
        (
            "wireheading",
            {REWARD: 4.9, HELD_OUT: 14.0},
            {REWARD: 5.1, HELD_OUT: 14.0},
            1,
        ),
    ],
)
def test_a_wire_trips_beyond_its_limit_alone(
    wire: str, inside: dict[str, float], outside: dict[str, float], steps: int
) -> None:
    assert tripped([{}, *[inside] * 5]) == []
    assert tripped([{}, *[outside] * 5]) == [(1 + steps, wire)]  # once, when it has held long enough


def test_a_condition_that_stays_away_for_a_while_trips_again_when_it_comes_back() -> None:
    high = {"objective/kl": 30.0}
    assert tripped([high, high, *[{}] * 5, high]) == [(1, "kl"), (8, "kl")]
    assert tripped([high, *[{}] * 4, high, *[{}] * 4, high]) == [(1, "kl")]  # it never stayed away for 5
    assert tripped([high, {}, high, {}], kl={"steps": 2}) == []


def test_trends_trip_before_the_gap_does() -> None:
    """Over a window of 4, slope times 3 in first deviations: reward +.2 * 3 / 2 = .3, held-out -.4 * 3 / 4 = -.3."""
    rows = [{REWARD: 0.2 * step, HELD_OUT: 10 - 0.4 * step} for step in range(6)]
    wire = {"window": 4, "max_gap": 9.0}
    assert tripped(rows, wireheading={**wire, "min_trend": 0.29}) == [(4, "wireheading")]
    assert tripped(rows, wireheading={**wire, "min_trend": 0.31}) == []
    falling_together = [{REWARD: -row[REWARD], HELD_OUT: row[HELD_OUT]} for row in rows]
    assert tripped(falling_together, wireheading={**wire, "min_trend": 0.29}) == []


def test_wireheading_sleeps_without_a_held_out_reward() -> None:
    wires = Tripwires(section(), TripwireState())
    figures = {name: value for name, value in HEALTHY.items() if "held_out" not in name}
    assert [wires.observe(step, {**figures, REWARD: 100.0 * step}) for step in range(1, 5)] == [[]] * 4


def test_a_norm_is_held_against_the_median_of_those_before_it() -> None:
    """Norms 1, 2, 3, 4, 5: median 3, ten times is 30. The fifth is the first with enough before the sixth."""
    rows = [{"grad_norm": float(norm)} for norm in (1, 2, 3, 4, 5)]
    assert tripped([*rows, {"grad_norm": 30.0}]) == []
    assert tripped([*rows, {"grad_norm": 30.1}]) == [(6, "grad_norm")]
    assert tripped([*rows[:4], {"grad_norm": 900.0}]) == []
    assert tripped([*rows, {"value/grad_norm": 80.1}]) == [(6, "grad_norm")]  # the critic's median is 8


def test_a_frozen_critic_trips_after_its_warm_up() -> None:
    rows = [{"value/explained_variance": -0.1}] * 20
    assert tripped(rows) == [(15, "critic")]  # 10 that do not count, then 5 in a row
    assert tripped([{"value/explained_variance": 0.0}] * 20) == []
    no_critic = Tripwires(section(), TripwireState())
    figures = {name: value for name, value in HEALTHY.items() if name != "value/explained_variance"}
    assert all(not no_critic.observe(step, figures) for step in range(1, 20))


def test_figures_that_are_no_numbers_neither_trip_nor_count() -> None:
    assert tripped([{"objective/kl": math.nan}, {"objective/kl": math.inf}, {"text/distinct_2": math.nan}]) == []


def test_off_is_off_and_the_strongest_action_wins() -> None:
    assert tripped([{"objective/kl": 30.0}], kl={"action": "off"}) == []
    wires = Tripwires(section(kl={"action": "lower_lr"}, ratio={"action": "stop"}), TripwireState())
    trips = wires.observe(1, {**HEALTHY, "objective/kl": 30.0, "policy/ratio_max": 99.0})
    assert [trip.action for trip in trips] == ["lower_lr", "stop"]
    strong = strongest(trips)
    assert strong is not None
    assert strong.wire == "ratio"
    assert strongest([]) is None


def test_a_third_rollback_is_a_stop() -> None:
    for rollbacks, action in ((0, "rollback"), (1, "rollback"), (2, "stop")):
        wires = Tripwires(section(kl={"action": "rollback"}), TripwireState(rollbacks=rollbacks))
        assert [trip.action for trip in wires.observe(1, {**HEALTHY, "objective/kl": 30.0})] == [action]


def test_a_trip_remembers_where_its_excursion_began() -> None:
    wires = Tripwires(section(), TripwireState())
    for step, share in enumerate((0.8, 0.8, 0.3, 0.3), start=1):
        wires.observe(step, {**HEALTHY, "text/distinct_2": share})
    assert wires.state.began == {"diversity": 3}
    (record,) = wires.state.trips
    assert (record["step"], record["wire"], record["value"], record["action"]) == (4, "diversity", 0.3, "warn")
    assert record["limit"] == pytest.approx(0.4)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_resumed_run_trips_alike(cut: int) -> None:
    """The state goes through JSON in the middle of the history, as a checkpoint has it."""
    rows = [{REWARD: 0.3 * step, HELD_OUT: 10 - 0.5 * step, "grad_norm": 1.0} for step in range(11)]
    rows[7] |= {"grad_norm": 50.0, "text/distinct_2": 0.1}
    rows[8] |= {"text/distinct_2": 0.1}
    whole = tripped(rows)
    assert {wire for _, wire in whole} == {"wireheading", "grad_norm", "diversity"}
    state, found = TripwireState(), []
    for step, row in enumerate(rows, start=1):
        found += [(trip.step, trip.wire) for trip in Tripwires(section(), state).observe(step, {**HEALTHY, **row})]
        if step == cut:
            fields = {name: getattr(state, name) for name in TripwireState.__slots__}
            state = TripwireState(**json.loads(json.dumps(fields)))
    assert found == whole
