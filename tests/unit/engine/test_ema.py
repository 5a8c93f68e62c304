"""The running average by hand, and weights that come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf.engine.ema import WeightAverage
from rlhf.errors import CheckpointError


def nothing() -> None:
    """Whole parameters have no copies to drop."""


def average_of(weight: nn.Parameter, decay: float) -> WeightAverage:
    return WeightAverage([weight], decay, nothing)


def test_three_updates_by_hand() -> None:
    """decay 0.15: warm-up gives 1/10, 2/11 is above 0.15. From 0 over the weights 10, 20, 40."""
    weight = nn.Parameter(torch.zeros(1))
    average = average_of(weight, 0.15)
    expected = [
        0.1 * 0 + 0.9 * 10,  # (1 + 0) / (10 + 0) = 0.1
        0.15 * 9 + 0.85 * 20,  # min(0.15, 2 / 11)
        0.15 * 18.35 + 0.85 * 40,
    ]
    for value, wanted in zip((10.0, 20.0, 40.0), expected, strict=True):
        with torch.no_grad():
            weight.fill_(value)
        average.update()
        with average.swapped():
            assert weight.item() == pytest.approx(wanted, rel=1e-6)
        assert weight.item() == value


def test_the_warm_up_goes_on_with_each_update() -> None:
    """decay 0.9: 1/10, 2/11, 3/12 of the average stay. All weights are 1, so 1 - average is the product of those."""
    weight = nn.Parameter(torch.zeros(1))
    average = average_of(weight, 0.9)
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(3):
        average.update()
    with average.swapped():
        assert 1 - weight.item() == pytest.approx((1 / 10) * (2 / 11) * (3 / 12), rel=1e-4)


def test_live_half_precision_weights_come_back_after_an_error_too() -> None:
    weight = nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(1)).bfloat16())
    live = weight.detach().clone()
    average = average_of(weight, 0.5)
    with torch.no_grad():
        weight.zero_()
    average.update()
    with torch.no_grad():
        weight.copy_(live)

    def fail_inside() -> None:
        with average.swapped():
            assert not torch.equal(weight, live)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert torch.equal(weight, live)


def test_a_partition_is_averaged_where_there_is_one() -> None:
    """At ZeRO 3 the parameter itself is empty between steps; whole copies are dropped before each exchange."""
    weight = nn.Parameter(torch.empty(0))
    weight.ds_tensor = torch.zeros(3)  # type: ignore[attr-defined]
    drops: list[float] = []
    average = WeightAverage([weight], 0.5, lambda: drops.append(float(weight.ds_tensor[0])))  # type: ignore[attr-defined]
    weight.ds_tensor.fill_(2.0)  # type: ignore[attr-defined]
    average.update()
    with average.swapped():
        assert weight.ds_tensor.tolist() == pytest.approx([1.8] * 3)  # type: ignore[attr-defined]
    assert weight.ds_tensor.tolist() == [2.0] * 3  # type: ignore[attr-defined]
    assert drops == pytest.approx([2.0, 1.8])


def test_a_loaded_average_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    saved = average_of(weight, 0.9)
    with torch.no_grad():
        weight.fill_(5.0)
    saved.update()
    saved.save(tmp_path / "average.pt")
    loaded = average_of(weight, 0.9)
    loaded.load(tmp_path / "average.pt")
    for each in (saved, loaded):
        each.update()
    with saved.swapped():
        wanted = weight.detach().clone()
    with loaded.swapped():
        assert torch.equal(weight, wanted)
        assert weight[0].item() == pytest.approx(5 - 4 * (1 / 10) * (2 / 11), rel=1e-5)


def test_an_average_that_is_missing_or_of_other_weights_is_refused(tmp_path: Path) -> None:
    average = average_of(nn.Parameter(torch.ones(2)), 0.9)
    with pytest.raises(CheckpointError, match="holds no average"):
        average.load(tmp_path / "average.pt")
    average_of(nn.Parameter(torch.ones(3)), 0.9).save(tmp_path / "average.pt")
    with pytest.raises(CheckpointError, match="averages other weights"):
        average.load(tmp_path / "average.pt")


def test_a_rank_takes_its_part_of_whole_averages() -> None:
    """Rank 1 of two: all of a whole parameter, the third of three elements of a partitioned one, and its padding."""
    whole, split = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.empty(0))
    split.ds_tensor = torch.zeros(2)  # type: ignore[attr-defined]
    average = WeightAverage([whole, split], 0.9, nothing)
    values = {whole: torch.tensor([3.0, 4.0]), split: torch.tensor([[5.0, 6.0, 7.0]])}
    average.fill(values.__getitem__, 3, rank=1)
    with average.swapped():
        assert whole.tolist() == [3.0, 4.0]
        assert split.ds_tensor.tolist() == [7.0, 0.0]  # type: ignore[attr-defined]
    average.update()  # the fourth, towards weights of 0
    with average.swapped():
        assert whole.tolist() == pytest.approx([3 * 4 / 13, 4 * 4 / 13])
