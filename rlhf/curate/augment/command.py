"""Instructions and answers written by a language model, from seed instructions: Self-Instruct and Evol-Instruct.

Work goes in rounds whose size depends on nothing but what is still missing, so the same seed and the same answers give
the same rows in the same order at any concurrency. A run that was broken off is repeated from the endpoint's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rlhf.curate.augment.evol import evolve
from rlhf.curate.augment.self_instruct import self_instruct
from rlhf.curate.augment.settings import AugmentSettings
from rlhf.curate.augment.writer import Drop, Writer
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.output import Output
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

Rounds = Iterator[list[dict[str, Any] | Drop]]
METHODS: dict[str, Callable[[Writer, Sequence[str], AugmentSettings], Rounds]] = {
    "self-instruct": self_instruct,
    "evol": evolve,
}
IDLE_ROUNDS = 8  # in a row without a new row, after which a run ends


def read_seeds(path: str) -> list[str]:
    """The instructions of a file: the single user turns of its rows, each once, with their input if any.

    Raises: DataError for what cannot be read, and when no row has a single turn.
    """
    records = read_records(DataSource(path), Prompt).records
    found = [prompt.messages[0] for prompt in records if len(prompt.messages) == 1]
    if not found:
        raise DataError("no row is a single turn", where=path, expected="instructions without a conversation before")
    return list(dict.fromkeys(f"{turn.content}\n{turn.input}".strip() for turn in found))


def augment(
    method: str,
    seeds: Sequence[str],
    endpoint: Endpoint,
    settings: AugmentSettings,
    output: Output,
    advance: Callable[[int], object] = lambda _: None,
) -> str:
    """Writes rows until there are enough; why it ended before that, or "".

    Args:
        method: a key of `METHODS`.
        seeds: instructions to start from.
        output: open; gets each round's rows as it ends.
        advance: told how many rows a round brought.

    Raises: EndpointError when the endpoint fails for good. A spent budget is no error: it ends the run.
    """
    writer, idle = Writer(endpoint, settings), 0
    for outcomes in METHODS[method](writer, seeds, settings):
        before = output.kept
        for outcome in outcomes:
            if isinstance(outcome, Drop):
                output.drop(outcome.reason, outcome.example)
            else:
                output.write(outcome | {"model": endpoint.service.model})
        advance(output.kept - before)
        if output.kept >= settings.num:
            return ""
        if writer.stopped:
            return writer.stopped
        idle = 0 if output.kept > before else idle + 1
        if idle == IDLE_ROUNDS:
            return f"{IDLE_ROUNDS} rounds in a row brought nothing new"
    return "every seed is used up"
