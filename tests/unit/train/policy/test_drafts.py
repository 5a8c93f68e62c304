"""Where drafts are, who draws from them, and what a checkpoint keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf.rollout.drafts import AnswerDraft
from rlhf.train.policy import drafts as module
from rlhf.train.policy.drafts import DraftKey, Drafts
from tests.support.tables import ONE_RANK

FEW = [DraftKey(row, 0) for row in range(4)]


def drafts_of(rank: int = 0, world: int = 1) -> Drafts:
    return Drafts(replace(ONE_RANK, rank=rank, world_size=world))


def draft(seed: int, *, whole: bool = False) -> AnswerDraft:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 6))
    ids = None if whole else rng.integers(0, 400, (length, 3)).astype(np.uint16)
    values = rng.random((length, 400 if whole else 3), np.float32)
    return AnswerDraft(rng.integers(0, 400, length).astype(np.int32), values, ids)


def assert_same(one: AnswerDraft, other: AnswerDraft) -> None:
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.values.dtype == other.values.dtype == np.float32
    np.testing.assert_array_equal(one.values, other.values)
    assert (one.ids is None) == (other.ids is None)
    if one.ids is not None and other.ids is not None:
        assert one.ids.dtype == other.ids.dtype
        np.testing.assert_array_equal(one.ids, other.ids)


def test_answers_without_drafts_are_dealt_in_turn() -> None:
    assert drafts_of(world=3).dealt(FEW) == [0, 1, 2, 0]


def test_a_draft_is_drawn_from_where_it_is_and_the_rest_fills_up() -> None:
    drafts = drafts_of(world=3)
    drafts.places = {FEW[0]: 2, FEW[3]: 2}
    assert drafts.dealt(FEW) == [2, 0, 1, 2]


def test_an_answer_is_a_draft_once_its_iteration_is_complete() -> None:
    drafts = drafts_of(rank=1, world=2)
    drafts.keep(FEW[:1], [1], [draft(1)])
    assert drafts.draft(FEW[0]) is None
    drafts.commit()
    kept = drafts.draft(FEW[0])
    assert kept is not None
    assert drafts.draft(FEW[1]) is None
    assert drafts.dealt(FEW[:1]) == [1]
    drafts.keep(FEW[:1], [0], [])  # drawn again: neither the new answer nor the former is a draft of this iteration
    assert drafts.draft(FEW[0]) is None
    assert drafts.dealt(FEW[:1]) == [0]
    drafts.commit()
    assert (drafts.own, drafts.places) == ({}, {FEW[0]: 0})


def test_a_checkpoint_of_an_iteration_that_failed_has_the_drafts_before_it(tmp_path: Path) -> None:
    drafts = drafts_of()
    drafts.keep(FEW[:2], [0, 0], [draft(1), draft(2)])
    drafts.commit()
    drafts.keep(FEW[1:3], [0, 0], [draft(3), draft(4)])
    drafts.save(tmp_path)
    assert drafts.load(tmp_path) == ""
    assert list(drafts.own) == FEW[:2]
    assert drafts.drawn == {}
    for key, seed in zip(FEW, (1, 2), strict=False):
        found = drafts.draft(key)
        assert found is not None
        assert_same(found, draft(seed))


def test_a_rank_keeps_its_own_answers_and_forgets_one_that_another_drew() -> None:
    own = drafts_of(rank=1, world=2)
    own.keep(FEW, [0, 1, 0, 1], [draft(1), draft(2)])
    own.commit()
    assert list(own.own) == [FEW[1], FEW[3]]
    own.keep(FEW[:2], [1, 0], [draft(3)])
    own.commit()
    assert set(own.own) == {FEW[0], FEW[3]}
    assert own.places[FEW[1]] == 0
    assert_same(own.own[FEW[0]], draft(3))


@pytest.mark.parametrize(
    ("ranks", "places"),
    [(1, [0, 0, 0, 0]), (2, [0, 1, 1, 1]), (3, [0, 1, 2, 0])],  # as saved by two; else in turn: rows 0, 1, 2, 3
)
def test_drafts_come_back_from_a_checkpoint_on_any_number_of_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, places: list[int]
) -> None:
    """Saved by two ranks, rank 1 with two files, with whole rows on one of the drafts."""
    monkeypatch.setattr(module, "FILE_DRAFTS", 2)
    kept = {key: draft(key.row, whole=key.row == 2) for key in FEW}
    for rank in range(2):
        saving = drafts_of(rank, world=2)
        mine = [kept[key] for key in FEW if (key.row > 0) == rank]
        saving.keep(FEW, [int(key.row > 0) for key in FEW], mine)
        saving.commit()
        saving.save(tmp_path)
    names = ["rank-0000-0000.npz", "rank-0001-0000.npz", "rank-0001-0001.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    found = [drafts_of(rank, world=ranks) for rank in range(ranks)]
    for each in found:
        assert each.load(tmp_path) == ""
        assert each.places == dict(zip(FEW, places, strict=True))
        assert list(each.own) == [key for key, place in zip(FEW, places, strict=True) if place == each.ranks.rank]
    together = {key: value for each in found for key, value in each.own.items()}
    assert sum(len(each.own) for each in found) == len(FEW)
    for key in FEW:
        assert_same(together[key], kept[key])
        parts = (together[key].tokens, together[key].values, together[key].ids)
        held = [part if part.base is None else part.base for part in parts if part is not None]
        assert sum(each.nbytes for each in held) == sum(part.nbytes for part in parts if part is not None)  # no more


def test_a_checkpoint_without_drafts_leaves_none(tmp_path: Path) -> None:
    drafts = drafts_of()
    drafts.keep(FEW[:1], [0], [draft(1)])
    drafts.commit()
    assert drafts.load(tmp_path / "missing") == ""
    assert (drafts.own, drafts.places) == ({}, {})
    drafts.save(tmp_path)
    drafts.load(tmp_path)
    assert (drafts.own, drafts.places) == ({}, {})
