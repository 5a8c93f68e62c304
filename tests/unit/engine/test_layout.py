"""Which elements a rank holds, counted by hand."""

from __future__ import annotations

import json

import pytest

from rlhf.engine.layout import FlatTensor, Layout, ShardSlice, Slot

FIRST, SECOND = Slot("first", (3,), 0), Slot("second", (2, 2), 3)


def test_zero_1_and_2_cut_the_flat_tensor():
    """Seven elements and padding in two parts of five: the second parameter lies in both."""
    flat = FlatTensor(5, (FIRST, SECOND))
    layout = Layout(2, 2, "float32", (flat,))
    assert layout.piece(flat, FIRST, 0) == ShardSlice(0, 0, 3)
    assert layout.piece(flat, SECOND, 0) == ShardSlice(3, 0, 2)
    assert layout.piece(flat, FIRST, 1).count == 0
    assert layout.piece(flat, SECOND, 1) == ShardSlice(0, 2, 2)


@pytest.mark.parametrize(
    ("size", "ranks", "counts"), [(3, 2, [2, 1]), (4, 2, [2, 2]), (4, 3, [2, 2, 0]), (1, 3, [1, 0, 0])]
)
def test_zero_3_cuts_the_parameter(size, ranks, counts):
    slot = Slot("first", (size,), 11)
    flat = FlatTensor(20, (slot,))
    layout = Layout(3, ranks, "float32", (flat,))
    pieces = [layout.piece(flat, slot, rank) for rank in range(ranks)]
    assert [piece.count for piece in pieces] == counts
    assert all(piece.place == 11 for piece in pieces)
    assert [piece.begin for piece in pieces if piece.count] == [0, 2][: sum(map(bool, counts))]


def test_zero_0_holds_everything():
    flat = FlatTensor(7, (FIRST, SECOND))
    assert Layout(0, 2, "float32", (flat,)).piece(flat, SECOND, 1) == ShardSlice(3, 0, 4)
    assert Layout(0, 2, "float32", (flat,)).num_shards == 1


def test_a_layout_is_read_back_from_json():
    layout = Layout(3, 2, "bfloat16", (FlatTensor(7, (FIRST, SECOND)), FlatTensor(0, ())), ("second",))
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert str(layout) == "2 ranks at ZeRO 3 in bfloat16"
