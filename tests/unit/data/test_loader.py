"""The order of rows depends on the seed and on how many were consumed, and on nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rlhf.data.loader import RowStream
from rlhf.errors import DataError


def stream(sizes=(20,), weights=(1.0,), seed=17, batch_size=4, epochs=1.0) -> RowStream:
    return RowStream(tuple(sizes), tuple(weights), seed, batch_size, epochs)


def all_rows(rows: RowStream) -> list[int]:
    seen: list[int] = []
    while batch := rows.batch(len(seen)):
        seen += batch
    return seen


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_one_epoch_sees_every_row_once(batch_size):
    rows = stream(sizes=(13, 7), weights=(1, 1), batch_size=batch_size)
    assert sorted(all_rows(rows)) == list(range(20))


def test_rows_are_shuffled_through_all_sources():
    order = all_rows(stream(sizes=(50, 50), weights=(1, 1)))
    assert order != sorted(order)
    first_half = sum(row < 50 for row in order[:50])
    assert 10 < first_half < 40  # unshuffled sources would give 50 or 0


def test_weights_are_passes_over_a_source():
    rows = stream(sizes=(10, 8, 4), weights=(2.0, 0.5, 2.5))
    assert rows.epoch_size == 20 + 4 + 10
    counts = Counter(all_rows(rows))
    assert [counts[row] for row in range(10)] == [2] * 10
    assert sorted(counts[row] for row in range(10, 18)) == [0] * 4 + [1] * 4
    assert sorted(counts[row] for row in range(18, 22)) == [2, 2, 3, 3]


def test_a_fraction_takes_other_rows_in_another_epoch():
    rows = stream(sizes=(100,), weights=(0.5,), batch_size=50, epochs=2)
    first, second = rows.batch(0), rows.batch(50)
    assert len(set(first)) == len(set(second)) == 50
    assert set(first) != set(second)


def test_order_does_not_depend_on_batch_size():
    orders = [all_rows(stream(batch_size=size, epochs=2.5)) for size in (1, 3, 8, 20, 1000)]
    assert all(order == orders[0] for order in orders)
    assert len(orders[0]) == 50


def test_epochs_differ_and_seeds_differ():
    order = all_rows(stream(epochs=2))
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20))
    assert order[:20] != order[20:]
    assert all_rows(stream(seed=18)) != order[:20]
    assert all_rows(stream()) == order[:20]


def test_an_epoch_is_the_stream_of_seed_and_epoch():
    """In this order, so that a run can be repeated; the draw for a fraction of the source comes first."""
    for epoch in (0, 1, 2):
        generator = np.random.default_rng([17, epoch])
        generator.permutation(20)
        expected = generator.permutation(20).tolist()
        assert stream(batch_size=20, epochs=3).batch(20 * epoch) == expected


def test_a_new_stream_goes_on_exactly_where_the_old_one_stopped():
    whole = all_rows(stream(batch_size=6, epochs=3))
    for consumed in (0, 6, 18, 20, 21, 54):
        assert stream(batch_size=6, epochs=3).batch(consumed) == whole[consumed : consumed + 6]


@pytest.mark.parametrize(
    ("epochs", "batch_size", "num_rows", "num_steps", "last"),
    [
        (1.0, 4, 20, 5, 4),
        (1.5, 4, 30, 8, 2),  # 7 * 4 + 2
        (0.25, 4, 5, 2, 1),
        (2.0, 64, 40, 1, 40),
        (0.001, 4, 1, 1, 1),  # never nothing
    ],
)
def test_epochs_steps_and_the_last_batch(epochs, batch_size, num_rows, num_steps, last):
    rows = stream(batch_size=batch_size, epochs=epochs)
    assert rows.num_steps == num_steps
    sizes = [len(rows.batch(step * batch_size)) for step in range(num_steps)]
    assert (sum(sizes), sizes[-1]) == (num_rows, last)
    assert rows.batch(num_rows) == []


def test_steps_per_epoch():
    assert stream(batch_size=4).steps_per_epoch == 5
    assert stream(batch_size=6, epochs=3).steps_per_epoch == 4
    assert stream(batch_size=64).steps_per_epoch == 1


def test_without_the_limit_the_stream_goes_on():
    rows = stream(batch_size=8, epochs=1)
    assert len(rows.batch(16)) == 4
    assert rows.batch(16, limit=False)[:4] == rows.batch(16)
    assert len(rows.batch(16, limit=False)) == 8
    assert sorted(rows.batch(20, limit=False) + rows.batch(28, limit=False) + rows.batch(36, limit=False)[:4]) == list(
        range(20)
    )


def test_weights_that_leave_no_row_are_refused():
    with pytest.raises(DataError, match="no row"):
        stream(sizes=(3,), weights=(0.1,)).batch(0)


def test_a_curriculum_sorts_the_first_epoch_alone():
    lengths = (5, 1, 3, 1, 9, 3, 7, 1, 2, 4)
    rows = RowStream((10,), (1.0,), 17, 4, 2.0, lengths)
    order = all_rows(rows)
    assert [lengths[row] for row in order[:10]] == [1, 1, 1, 2, 3, 3, 4, 5, 7, 9]
    plain = all_rows(stream(sizes=(10,), epochs=2.0))
    assert order[10:] == plain[10:]
    # Rows of one length are in the order that the shuffle gave them, so that seeds differ.
    assert [row for row in order[:10] if lengths[row] == 1] == [row for row in plain[:10] if lengths[row] == 1]


def test_a_curriculum_keeps_what_the_weights_ask_for():
    lengths = (4, 2, 3, 1)
    order = all_rows(RowStream((2, 2), (2.0, 0.5), 17, 3, 1.0, lengths))
    assert len(order) == 5
    assert [lengths[row] for row in order] == sorted(lengths[row] for row in order)
    assert Counter(order)[0] == Counter(order)[1] == 2


def test_a_curriculum_keeps_the_shuffled_order_of_many_ties():
    first_by = tuple(row % 3 for row in range(300))
    plain = all_rows(stream(sizes=(300,)))
    order = all_rows(RowStream((300,), (1.0,), 17, 4, 1.0, first_by))
    assert order == sorted(plain, key=lambda row: row % 3)  # Python's sort is stable
