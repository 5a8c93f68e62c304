"""`rlhf data augment`: instructions and answers written by a language model from seed instructions.

The size of a round depends only on how many rows are missing, so the same seed and the same answers give the same
rows in the same order at any concurrency. An interrupted run is repeated from the cache of the endpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from rlhf.curate.augment.evol import evolve
from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.self_instruct import self_instruct
from rlhf.curate.augment.writer import Rejected, Writer
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.options import EndpointOptions, answers_cache
from rlhf.curate.output import Output
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

Rounds = Iterator[list[dict[str, Any] | Rejected]]
METHODS: dict[str, Callable[[Writer, Sequence[str], AugmentOptions], Rounds]] = {
    "self-instruct": self_instruct,
    "evol": evolve,
}
IDLE_ROUNDS = 8  # in a row without a new row, after which a run ends


def run(options: AugmentOptions, service: EndpointOptions) -> int:
    """Writes the rows; a run that ends early says why."""
    seeds = read_seeds(options.seeds)
    output = Output(options.out, command="data augment", inputs=[options.seeds], options=options.recorded())
    bar = tqdm(desc="augment", total=options.num, unit=" rows", disable=None, leave=False)
    opened = Endpoint(options.endpoint, options.model, service, cache=answers_cache(options.out))
    with output, opened as endpoint, bar:
        stopped = augment(seeds, endpoint, options, output, bar.update)
        output.extra = {"usage": asdict(endpoint.usage), "stopped": stopped}
    sys.stderr.write(f"{output.summary()}\n{endpoint.usage.described()}\n")
    if stopped:
        sys.stderr.write(f"{output.kept} of {options.num} rows: {stopped}\n")
    return 0


def read_seeds(path: str) -> list[str]:
    """The distinct instructions of a file: single user turns, with their input if any.

    Raises: DataError for a file that cannot be read, or in which no row is a single turn.
    """
    records = read_records(DataSource(path), Prompt).records
    found = [prompt.messages[0] for prompt in records if len(prompt.messages) == 1]
    if not found:
        raise DataError("no row is a single turn", where=path, expected="instructions without an earlier conversation")
    return list(dict.fromkeys(f"{turn.content}\n{turn.input}".strip() for turn in found))


def augment(
    seeds: Sequence[str],
    endpoint: Endpoint,
    options: AugmentOptions,
    output: Output,
    advance: Callable[[int], object] = lambda _: None,
) -> str:
    """Writes rows until there are enough; returns why it ended earlier, or "".

    Args:
        seeds: instructions to start from.
        output: open; receives the rows of each round.
        advance: called with the number of new rows after each round.

    Raises: EndpointError on a permanent failure of the endpoint. A spent budget ends the run without an error.
    """
    writer, idle = Writer(endpoint, options), 0
    for outcomes in METHODS[options.method](writer, seeds, options):
        before = output.kept
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                output.drop(outcome.reason, outcome.example)
            else:
                output.write(outcome | {"model": endpoint.model})
        advance(output.kept - before)
        if output.kept >= options.num:
            return ""
        if writer.stopped:
            return writer.stopped
        idle = 0 if output.kept > before else idle + 1
        if idle == IDLE_ROUNDS:
            return f"{IDLE_ROUNDS} rounds in a row brought nothing new"
    return "every seed is used up"
