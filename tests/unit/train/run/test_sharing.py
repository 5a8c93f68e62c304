"""Items that two ranks read between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.train.run.sharing import read_shared


def shared(rank: int, lengths: list[int]) -> tuple[list[int], list[list[int]]]:
    """What a rank gets, and which items it read, when each result is ten times the item's number."""
    calls: list[list[int]] = []

    def gather(found: dict[int, int]) -> list[dict[int, int]]:
        return [found, {item: 10 * item for item in range(len(lengths)) if item not in found}]

    def read(items: list[int]) -> list[int]:
        calls.append(items)
        return [10 * item for item in items] or [-1]  # an idle row has an output too

    ranks: Any = SimpleNamespace(rank=rank, world_size=2, gather=gather)
    return read_shared(lengths, 5, ranks, read), calls


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_gets_all_results_in_order(rank: int) -> None:
    """Tokens 5, 3, 3, 2 and 1 in two rows of 5 per rank: rows 0 and 2 hold 5 and 3; rows 1 and 3 hold 3 and 2 + 1."""
    found, calls = shared(rank, [5, 3, 3, 2, 1])
    assert found == [0, 10, 20, 30, 40]
    assert calls == [[[0], [2]], [[1], [3, 4]]][rank]


def test_a_rank_without_work_reads_an_idle_row() -> None:
    assert shared(1, [4]) == ([0], [[]])
