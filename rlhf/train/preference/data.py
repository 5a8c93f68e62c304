"""Rows of a run: rankings, or single verdicts for KTO, and the prompts that are answered while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlhf.config.schema import DpoConfig
from rlhf.data.encode import EncodedMarked, EncodedPrompt, Encoder
from rlhf.data.packing import Tree
from rlhf.data.records import MarkedAnswers, Ranking, prompt_of
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.train.inputs import LoadedRows, load_first, load_train_and_eval
from rlhf.train.preference.rows import Compared
from rlhf.train.rankings import drawn_answers, load_rankings
from rlhf.train.run.run import Run

WITHOUT_EVAL = "no data.eval: no held-out loss, and the last checkpoint is exported"


@dataclass(frozen=True, slots=True)
class PreferenceData:
    """Training rows, held-out rows (none without data.eval), and prompts from the file that is held out, or trained on
    where none is."""

    train: LoadedRows[Any]
    held_out: LoadedRows[Any]
    prompts: list[EncodedPrompt]


def load_preferences(run: Run[DpoConfig], tokenizer: ChatTokenizer) -> PreferenceData:
    """Reads all data, before any model is loaded.

    Raises: DataError for rows that cannot be used, and for rankings without an untied pair.
    """
    prompts = _prompts(run, tokenizer)
    if run.config.dpo.loss == "kto":
        return PreferenceData(*_load_marked(run, tokenizer), prompts)
    train, held_out, _ = load_rankings(run, tokenizer, without_eval=WITHOUT_EVAL)
    return PreferenceData(train, held_out, prompts)


def _load_marked(
    run: Run[DpoConfig], tokenizer: ChatTokenizer
) -> tuple[LoadedRows[EncodedMarked], LoadedRows[EncodedMarked]]:
    data = run.config.data
    encoder = Encoder(tokenizer, data.max_length)
    (train, summary), (held_out, held_out_summary) = load_train_and_eval(
        run.config, MarkedAnswers, encoder, lambda each: each.marked
    )
    train, held_out = (_limited(rows, data.max_answers, run.config.run.seed) for rows in (train, held_out))
    good, bad = (sum(each == verdict for item in train.items for each in item.good) for verdict in (True, False))
    run.say(f"train: {summary}; {good:,} good answers, {bad:,} bad")
    if not (good and bad):
        run.say(
            f"warning: every answer is {'good' if good else 'bad'}: nothing says what is {'bad' if good else 'good'}"
        )
    run.say(f"eval:  {held_out_summary}" if data.eval else WITHOUT_EVAL)
    return train, held_out


def _limited(loaded: LoadedRows[EncodedMarked], max_answers: int, seed: int) -> LoadedRows[EncodedMarked]:
    """At most `max_answers` answers of each row, sampled with one of each verdict where there are both."""
    items = []
    for row, item in enumerate(loaded.items):
        keep = list(range(len(item.answers)))
        if len(keep) > max_answers:
            keep = drawn_answers(item, keep, max_answers, (seed, row))
        answers, good = tuple(item.answers[each] for each in keep), tuple(item.good[each] for each in keep)
        items.append(replace(item, answers=answers, good=good))
    return replace(loaded, items=items)


def _prompts(run: Run[DpoConfig], tokenizer: ChatTokenizer) -> list[EncodedPrompt]:
    """The first prompts of the held-out data, for sample answers and the KL."""
    config = run.config
    encoder = Encoder(tokenizer, config.sampling.max_prompt_tokens)

    def encode(records: Sequence[Ranking | MarkedAnswers]) -> list[EncodedPrompt]:
        return encoder.prompts([prompt_of(record) for record in records])

    kind: Any = MarkedAnswers if config.dpo.loss == "kto" else Ranking
    count = max(config.dpo.kl_prompts, config.log.num_samples)
    return load_first(config.data, (config.data.eval or config.data.train)[0], kind, encode, count)


def answers_of_others(items: Sequence[Compared], max_length: int) -> list[Tree]:
    """Each prompt with an answer of the next row that has another prompt, or of the next row where none has.

    The prompts keep their tokens, and the answer is cut on the right to `max_length` tokens of both.
    """
    prompts = [np.ascontiguousarray(item.prompt).tobytes() for item in items]
    partner = [(row + 1) % len(items) for row in range(len(items))]
    if len(set(prompts)) > 1:
        for row in reversed(range(2 * len(items))):  # from the right, twice: the last rows look at the first ones
            here, after = row % len(items), (row + 1) % len(items)
            partner[here] = after if prompts[after] != prompts[here] else partner[after]
    return [_with_answer_of(items, row, other, max_length) for row, other in enumerate(partner)]


def _with_answer_of(items: Sequence[Compared], row: int, other: int, max_length: int) -> Tree:
    prompt, answers = items[row].prompt, items[other].answers
    return prompt, [answers[row % len(answers)][: max(1, max_length - len(prompt))]]
