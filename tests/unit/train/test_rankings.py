"""Which rankings stage 2 keeps, and which of their answers."""

from __future__ import annotations

import numpy as np

from rlhf.data.encode import EncodedRanking
from rlhf.data.records import Message, Ranking
from rlhf.train.inputs import LoadedRows
from rlhf.train.rankings import Ranked, drawn_answers, usable


def ranked(tokens: tuple[int, ...], ranks: tuple[int, ...], scores: tuple[float, ...] | None = None) -> Ranked:
    """A ranking whose answers are one token each."""
    record = Ranking((Message("user", "질문"),), tuple(f"답 {number}" for number in tokens), ranks, scores=scores)
    answers = tuple(np.asarray([token], np.int32) for token in tokens)
    return record, EncodedRanking(np.asarray([1], np.int32), answers, ranks, scores=scores)


def loaded(*sources: list[Ranked]) -> LoadedRows[Ranked]:
    rows = [row for source in sources for row in source]
    return LoadedRows(rows, tuple(map(len, sources)), (1.0,) * len(sources), [])


def test_answers_alike_are_kept_once_and_rows_without_a_pair_dropped() -> None:
    """The second row is a tie, the third one answer twice; the fourth keeps the better-ranked of its equal answers."""
    rows = [ranked((5, 6), (1, 2)), ranked((5, 6), (1, 1)), ranked((5, 5), (1, 2))]
    found, notes = usable(loaded(rows, [ranked((5, 7, 5), (3, 2, 1), (1.0, 2.0, 3.0))]), 4, seed=0)
    assert found.sizes == (1, 1)
    assert notes == "; 2 answers alike; 2 rows without a pair"
    record, item = found.items[1]
    assert (item.ranks, item.scores) == (record.ranks, record.scores) == ((2, 1), (2.0, 3.0))
    assert [answer.tolist() for answer in item.answers] == [[7], [5]]
    assert record.responses == ("답 7", "답 5")


def test_a_row_of_many_answers_is_cut_with_a_pair_left() -> None:
    many = ranked((2, 3, 4, 5, 6), (1, 1, 1, 1, 2))
    found, notes = usable(loaded([many]), 3, seed=0)
    assert notes == "; 1 rows cut to 3 answers"
    assert len(found.items[0][1].answers) == 3
    assert set(found.items[0][1].ranks) == {1, 2}
    assert len(usable(loaded([many]), 4, seed=0)[0].items[0][1].answers) == 4
    assert usable(loaded([many]), 5, seed=0)[1] == ""


def test_drawn_answers_always_hold_two_ranks() -> None:
    """One of five answers differs in rank: of two drawn it is always one, whatever the stream."""
    _, item = ranked((2, 3, 4, 5, 6), (1, 1, 1, 1, 2))
    found = [drawn_answers(item, [0, 1, 2, 4], 2, (seed, 7)) for seed in range(20)]
    assert all(len(chosen) == 2 and chosen == sorted(chosen) and 4 in chosen for chosen in found)
    assert len({tuple(chosen) for chosen in found}) == 3  # streams differ, and number 3 was not among them
    assert found[0] == drawn_answers(item, [0, 1, 2, 4], 2, (0, 7))
