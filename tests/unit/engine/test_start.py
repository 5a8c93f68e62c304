"""Starting weights from the disk in the place of trained ones, which come back as they were."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rlhf.engine.start import StartingWeights
from tests.support.tables import ONE_RANK


def test_the_start_comes_in_place_and_the_trained_weights_return(tmp_path: Path) -> None:
    released: list[int] = []
    flat = torch.arange(100_000.0)
    weights = [nn.Parameter(flat[:2]), nn.Parameter(flat[2:5].bfloat16())]
    start = StartingWeights(weights, tmp_path / "reference", ONE_RANK, lambda: released.append(1))
    (file,) = (tmp_path / "reference").iterdir()
    assert file.stat().st_size < 10_000  # the parts alone, not the flat memory they lie in
    with torch.no_grad():
        weights[0].mul_(10)
        weights[1].fill_(7)
    with start.in_place():
        assert [each.tolist() for each in weights] == [[0, 1], [2, 3, 4]]
    assert [each.tolist() for each in weights] == [[0, 10], [7, 7, 7]]
    assert len(released) == 2  # before each exchange
    start.remove()
    assert list((tmp_path / "reference").iterdir()) == []


def test_a_partition_is_exchanged_and_not_what_is_gathered(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.zeros(4))
    weight.ds_tensor = nn.Parameter(torch.tensor([1.0, 2.0]))  # type: ignore[attr-defined]
    start = StartingWeights([weight], tmp_path, ONE_RANK, lambda: None)
    weight.ds_tensor.data.fill_(5)  # type: ignore[attr-defined]
    with start.in_place():
        assert weight.ds_tensor.tolist() == [1, 2]  # type: ignore[attr-defined]
    assert weight.ds_tensor.tolist() == [5, 5]  # type: ignore[attr-defined]
    assert weight.tolist() == [0, 0, 0, 0]
