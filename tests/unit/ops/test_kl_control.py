"""The adaptive KL controller by hand: 100 samples of a horizon of 1,000 move it by a tenth of the error."""

import pytest

from rlhf.ops.kl_control import adapted_kl_coefficient


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.5),  # on target
        (6.6, 0.505),  # 10 % above: 0.5 * (1 + 0.1 * 0.1)
        (5.4, 0.495),  # 10 % below
        (60.0, 0.51),  # error 9, clipped to 0.2
        (0.0, 0.49),  # error -1, clipped to -0.2
        (-3.0, 0.49),  # k1 may be negative
    ],
)
def test_the_coefficient_follows_the_kl(kl, expected):
    found = adapted_kl_coefficient(0.5, kl, target=6.0, num_samples=100, horizon=1000)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("wrong", [{"target": 0.0}, {"target": -1.0}, {"horizon": 0}])
def test_targets_and_horizons_are_positive(wrong):
    with pytest.raises(ValueError, match=r"expected both > 0"):
        adapted_kl_coefficient(0.5, 1.0, **({"target": 6.0, "num_samples": 8, "horizon": 100} | wrong))
