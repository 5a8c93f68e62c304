"""Learning-rate factors by hand."""

import pytest

from rlhf.ops.schedules import learning_rate_factor

# Ten steps, two of them warm-up: the decay runs over steps 3 to 10, a seventh of it per step.
LINEAR = {1: 0.5, 2: 1.0, 3: 1.0, 4: 1 - 0.9 / 7, 6: 1 - 0.9 * 3 / 7, 10: 0.1, 11: 0.1, 99: 0.1}
COSINE = {
    1: 0.5,
    2: 1.0,
    3: 1.0,
    4: 0.1 + 0.9 * (1 + 0.9009688679) / 2,  # cos(pi / 7)
    6: 0.1 + 0.9 * (1 + 0.2225209340) / 2,  # cos(3 pi / 7): above linear before the middle
    8: 0.1 + 0.9 * (1 - 0.6234898019) / 2,  # cos(5 pi / 7): below it after
    10: 0.1,
    11: 0.1,
}
CONSTANT = {1: 0.5, 2: 1.0, 3: 1.0, 10: 1.0, 11: 1.0}


@pytest.mark.parametrize(("kind", "expected"), [("linear", LINEAR), ("cosine", COSINE), ("constant", CONSTANT)])
def test_factors_by_hand(kind, expected):
    found = {step: learning_rate_factor(step, total=10, warmup=2, kind=kind, floor=0.1) for step in expected}
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_middle_of_a_cosine_is_half_way_to_the_floor():
    """Seven steps without warm-up: step 4 is the middle, (1 + 0.2) / 2."""
    assert learning_rate_factor(4, total=7, warmup=0, kind="cosine", floor=0.2) == pytest.approx(0.6)
    assert learning_rate_factor(7, total=7, warmup=0, kind="cosine", floor=0.0) == pytest.approx(0.0, abs=1e-12)


def test_short_runs_have_a_factor_for_every_step():
    """One step without warm-up is at the peak; of two, the second is at the floor."""
    assert learning_rate_factor(1, total=1, warmup=0, kind="cosine", floor=0.1) == 1.0
    found = [learning_rate_factor(step, total=2, warmup=0, kind="linear", floor=0.1) for step in (1, 2)]
    assert found == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("wrong", [{"step": 0}, {"floor": -0.1}, {"floor": 1.1}, {"kind": "square"}])
def test_what_is_no_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        learning_rate_factor(**({"step": 3, "total": 9, "warmup": 1, "kind": "linear", "floor": 0.1} | wrong))
