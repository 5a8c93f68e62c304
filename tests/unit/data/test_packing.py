"""Plans that share work evenly, and packed rows written out by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from rlhf.data.encode import EncodedRanking, EncodedSequence
from rlhf.data.packing import (
    PackedRow,
    first_tokens,
    idle_row,
    pack_sequences,
    pack_trees,
    plan_micro_batches,
    trees_of,
)
from rlhf.errors import DataError
from rlhf.models.loading import load_causal_lm
from rlhf.ops.segments import Segment


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


def sequence(values: list[int], answer: list[int]) -> EncodedSequence:
    return EncodedSequence(ids(*values), np.asarray(answer, bool))


def test_plan_by_hand():
    # 14 tokens, 2 ranks of 8: one micro-batch each. 5 -> first, 3 -> second, 3 -> second (6),
    # 2 -> first (7), 1 -> second (6 < 7)
    assert plan_micro_batches([5, 3, 3, 2, 1], 8, 2) == [[[0, 3]], [[1, 2, 4]]]


def test_plan_of_one_rank_by_hand():
    # 6 items of 4 in rows of 8: three rows of two
    assert plan_micro_batches([4] * 6, 8, 1) == [[[0, 3], [1, 4], [2, 5]]]


def test_plan_adds_a_row_a_rank_when_items_do_not_pack():
    # 9 tokens would need 2 rows of 5, but three items of 3 go one a row: 2 + 2 rows
    plan = plan_micro_batches([3, 3, 3], 5, 2)
    assert plan == [[[0], [2]], [[1], []]]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_plan_keeps_every_item_once_within_capacity(num_ranks):
    rng = random.Random(num_ranks)
    for _ in range(100):
        capacity = rng.randrange(10, 80)
        lengths = [rng.randrange(1, capacity + 1) for _ in range(rng.randrange(1, 40))]
        plan = plan_micro_batches(lengths, capacity, num_ranks)
        assert len(plan) == num_ranks
        assert len({len(rows) for rows in plan}) == 1  # collectives must match
        assert sorted(item for rows in plan for row in rows for item in row) == list(range(len(lengths)))
        assert max(sum(lengths[item] for item in row) for rows in plan for row in rows) <= capacity
        assert all(row == sorted(row) for rows in plan for row in rows)
        assert plan == plan_micro_batches(list(lengths), capacity, num_ranks)


def test_plan_is_even():
    lengths = [random.Random(0).randrange(1, 30) for _ in range(64)]
    loads = [sum(lengths[i] for i in row) for rows in plan_micro_batches(lengths, 128, 2) for row in rows]
    assert max(loads) - min(loads) <= max(lengths)


def test_fewer_items_than_ranks_gives_idle_rows():
    assert plan_micro_batches([3], 8, 3) == [[[0]], [[]], [[]]]
    assert plan_micro_batches([], 8, 2) == [[[]], [[]]]
    assert_idle(pack_sequences([]))
    assert_idle(pack_trees([]))


def test_item_that_never_fits_is_refused():
    with pytest.raises(DataError, match=r"9 tokens does not fit into train.micro_tokens = 8"):
        plan_micro_batches([3, 9], 8, 1)
    assert plan_micro_batches([8], 8, 1) == [[[0]]]


def assert_idle(row: PackedRow) -> None:
    assert row.num_tokens == 1
    assert row.input_ids.tolist() == row.position_ids.tolist() == [[0]]
    assert row.positions.tolist() == [0]  # the head runs once: ZeRO-3 gathers its weights on every rank
    assert row.weights.tolist() == [0.0]
    assert row.items.tolist() == [-1]
    assert row.segments.spans == (Segment(0, 1),)


def test_idle_row_weighs_nothing():
    assert_idle(idle_row())


TWO = (sequence([10, 11, 12], [0, 1, 1]), sequence([20, 21, 22, 23], [0, 0, 1, 1]))


def test_pack_sequences_by_hand():
    row = pack_sequences(TWO)
    assert row.num_tokens == 7
    assert row.input_ids.tolist() == [[10, 11, 12, 20, 21, 22, 23]]
    assert row.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert row.segments.spans == (Segment(0, 3), Segment(3, 7))
    # 11 is predicted at 10 (row place 0), 12 at 1; 22 at 21 (place 4), 23 at 5
    assert row.positions.tolist() == [0, 1, 4, 5]
    assert row.labels.tolist() == [11, 12, 22, 23]
    assert row.weights.tolist() == [1.0] * 4
    assert row.items.tolist() == [0, 0, 1, 1]
    integers = (row.input_ids, row.position_ids, row.positions, row.labels, row.items)
    assert {tensor.dtype for tensor in integers} == {torch.int64}
    assert row.weights.dtype == torch.float32


def test_prompt_weight_adds_the_prompt_but_never_a_first_token():
    row = pack_sequences(TWO, prompt_weight=0.25)
    assert row.positions.tolist() == [0, 1, 3, 4, 5]  # 21 joins, predicted at 20 (place 3); 10 and 20 never
    assert row.labels.tolist() == [11, 12, 21, 22, 23]
    assert row.weights.tolist() == [1.0, 1.0, 0.25, 1.0, 1.0]
    assert row.items.tolist() == [0, 0, 1, 1, 1]


def test_a_first_token_is_never_a_label_even_inside_an_answer():
    row = pack_sequences([sequence([5, 6], [1, 1]), sequence([7, 8], [1, 1])])
    assert row.labels.tolist() == [6, 8]
    assert row.positions.tolist() == [0, 2]


def test_packing_leaves_its_sequences_alone():
    first = sequence([1, 2], [1, 1])
    pack_sequences([first], prompt_weight=0.5)
    assert first.answer_mask.tolist() == [True, True]


TREES = ((ids(1, 2, 3), (ids(4, 0), ids(5, 6, 0))), (ids(7), (ids(8, 0), ids(0), ids(9, 9, 0))))


def test_pack_trees_by_hand():
    row = pack_trees(TREES)
    assert row.input_ids.tolist() == [[1, 2, 3, 4, 0, 5, 6, 0, 7, 8, 0, 0, 9, 9, 0]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 1, 1, 2, 3]]
    assert row.segments.spans == (
        Segment(0, 3),
        Segment(3, 5, 0, 3),
        Segment(5, 8, 0, 3),
        Segment(8, 9),
        Segment(9, 11, 8, 9),
        Segment(11, 12, 8, 9),
        Segment(12, 15, 8, 9),
    )
    assert row.positions.tolist() == [4, 7, 10, 11, 14]  # each answer's last token
    assert row.items.tolist() == [0, 1, 2, 3, 4]
    assert row.weights.tolist() == [1.0] * 5


def test_rankings_become_trees():
    ranking = EncodedRanking(TREES[0][0], TREES[0][1], (1, 2))
    ((prompt, answers),) = trees_of([ranking])
    assert prompt.tolist() == [1, 2, 3]
    assert [answer.tolist() for answer in answers] == [[4, 0], [5, 6, 0]]


def test_row_moves_whole():
    row = pack_sequences(TWO)
    moved = row.to(torch.device("meta"))
    for name in ("input_ids", "position_ids", "positions", "labels", "weights", "items"):
        tensor, original = getattr(moved, name), getattr(row, name)
        assert (tensor.device.type, tensor.shape, tensor.dtype) == ("meta", original.shape, original.dtype)
    same = row.to(torch.device("cpu"))
    for name in ("input_ids", "position_ids", "positions", "labels", "weights", "items"):
        assert torch.equal(getattr(same, name), getattr(row, name))
    assert same.segments == row.segments


def test_the_first_tokens_of_a_tree_compute_what_they_do_in_the_whole_row(tiny_neox):
    """A cut inside the second answer, which keeps its prompt as prefix; every token is read."""
    prompt = np.arange(2, 7, dtype=np.int32)
    answers = [np.arange(9, 13, dtype=np.int32), np.arange(20, 26, dtype=np.int32)]
    row = pack_trees([(prompt, answers)])
    short = first_tokens(row, 11)  # 5 of the prompt, 4 of the first answer, 2 of the second
    assert short.num_tokens == 11
    assert short.positions.tolist() == list(range(11))
    assert [(span.start, span.end) for span in short.segments.spans] == [(0, 5), (5, 9), (9, 11)]
    model = load_causal_lm(str(tiny_neox)).eval()
    with torch.no_grad():
        whole = model(row.input_ids, row.position_ids, row.segments, torch.arange(row.num_tokens))
        cut = model(short.input_ids, short.position_ids, short.segments, short.positions)
    torch.testing.assert_close(cut, whole[:11], rtol=1e-5, atol=1e-6)
    assert first_tokens(row, 99).num_tokens == row.num_tokens == 15
