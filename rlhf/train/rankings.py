"""Rankings to train on and held-out ones: encoded, with an untied pair each, and their text for the report card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhf.config.schema import DpoConfig, RewardConfig
from rlhf.data.encode import EncodedMarked, EncodedRanking, Encoder
from rlhf.data.records import Ranking
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import DataError
from rlhf.evaluate.reward.shortcuts import MAX_TRAINING_RANKINGS, sampled
from rlhf.evaluate.reward.test_set import distinct_answers, record_subset
from rlhf.train.inputs import LoadedRows, load_train_and_eval
from rlhf.train.run.run import Run

Ranked = tuple[Ranking, EncodedRanking]


@dataclass(frozen=True, slots=True)
class Records:
    """Rankings as text: the held-out rows, and as many training rows as the shortcut baselines use."""

    train: list[Ranking]
    held_out: list[Ranking]


def load_rankings(
    run: Run[RewardConfig] | Run[DpoConfig], tokenizer: ChatTokenizer, *, without_eval: str
) -> tuple[LoadedRows[EncodedRanking], LoadedRows[EncodedRanking], Records]:
    """Training rows, held-out rows (none without data.eval), and their records.

    Args:
        without_eval: what is said of a run without data.eval.

    Raises: DataError when no training row has two answers of different rank that differ in tokens.
    """
    data, seed = run.config.data, run.config.run.seed
    encoder = Encoder(tokenizer, data.max_length)
    (train, summary), (held_out, held_out_summary) = load_train_and_eval(run.config, Ranking, encoder, _both)
    train, notes = usable(train, data.max_answers, seed)
    if not train.items:
        raise DataError(
            f"none of the training rankings can be used{notes}",
            where="data.train",
            expected="rows in which two answers have different ranks and different tokens",
            fix="check the ranks, and that data.max_length does not cut answers to the same tokens",
        )
    run.say(f"train: {summary}{notes}")
    held_out, notes = usable(held_out, data.max_answers, seed)
    run.say(f"eval:  {held_out_summary}{notes}" if data.eval else without_eval)
    records = [[record for record, _ in rows.items] for rows in (train, held_out)]
    return _encoded(train), _encoded(held_out), Records(sampled(records[0], MAX_TRAINING_RANKINGS), records[1])


def _both(encoder: Encoder) -> Callable[[Sequence[Ranking]], list[Ranked]]:
    return lambda records: list(zip(records, encoder.rankings(records), strict=True))


def _encoded(loaded: LoadedRows[Ranked]) -> LoadedRows[EncodedRanking]:
    return LoadedRows([item for _, item in loaded.items], loaded.sizes, loaded.weights, loaded.reports)


def usable(loaded: LoadedRows[Ranked], max_answers: int, seed: int) -> tuple[LoadedRows[Ranked], str]:
    """Rows with at least one untied pair, with duplicate answers (after tokenisation) removed and at most `max_answers`
    kept. A pair of equal answers would add a constant log 2 to the loss.
    """
    items: list[Ranked] = []
    sizes, alike, cut, dropped, first = [], 0, 0, 0, 0
    for size in loaded.sizes:
        before = len(items)
        for row in range(first, first + size):
            record, item = loaded.items[row]
            keep = distinct_answers(item)
            alike += len(item.answers) - len(keep)
            if len(keep) > max_answers:
                keep, cut = drawn_answers(item, keep, max_answers, (seed, row)), cut + 1
            if len({item.ranks[answer] for answer in keep}) > 1:
                items.append((record_subset(record, keep), _subset(item, keep)))
            else:
                dropped += 1
        sizes.append(len(items) - before)
        first += size
    counts = {"answers alike": alike, f"rows cut to {max_answers} answers": cut, "rows without a pair": dropped}
    notes = "".join(f"; {count} {name}" for name, count in counts.items() if count)
    return replace(loaded, items=items, sizes=tuple(sizes)), notes


def drawn_answers(
    item: EncodedRanking | EncodedMarked, among: Sequence[int], count: int, stream: tuple[int, ...]
) -> list[int]:
    """Numbers of `count` answers sampled from a seeded stream, at least two of them of different rank."""
    generator = np.random.default_rng(stream)
    order = [among[place] for place in generator.permutation(len(among))]
    other = next((answer for answer in order if item.ranks[answer] != item.ranks[order[0]]), order[0])
    chosen = [order[0], other, *(answer for answer in order[1:] if answer != other)]
    return sorted(chosen[:count])


def _subset(item: EncodedRanking, keep: Sequence[int]) -> EncodedRanking:
    scores = None if item.scores is None else tuple(item.scores[answer] for answer in keep)
    return replace(
        item,
        answers=tuple(item.answers[answer] for answer in keep),
        ranks=tuple(item.ranks[answer] for answer in keep),
        scores=scores,
    )
