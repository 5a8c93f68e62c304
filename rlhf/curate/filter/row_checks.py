"""The rules that look at a row alone, over the rows of a file: in one process per core once it is long."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import NamedTuple

from rlhf.curate.filter.checks import Check
from rlhf.curate.row_texts import numbered_texts
from rlhf.data.readers import NumberedRow
from rlhf.errors import DataError

ALONE = 10_000  # rows, some seconds of work, after which other processes are started
BATCH = 500  # rows that a process checks at a time
MOST = 16  # processes: more would wait for the one that reads the file
BAD_ROW_REASON = "bad row"


class Verdict(NamedTuple):
    """What is known of a row: its prompt ("" of a bad one), and the rule that drops it with its evidence, if any."""

    prompt: str
    reason: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class RowRules:
    """What is done with each row; called in other processes, so everything in it can be pickled.

    Args:
        rules: makes the rules by their reasons, in order.
        prepared: applied to the rows first.
        path, on_bad_row: as of `numbered_texts`.
    """

    rules: Callable[[], Mapping[str, Check]]
    prepared: Callable[[NumberedRow], NumberedRow]
    path: str
    on_bad_row: str

    def verdicts(self, rows: Iterable[NumberedRow], rules: Mapping[str, Check]) -> Iterator[Verdict]:
        for row, texts in numbered_texts(map(self.prepared, rows), self.path, self.on_bad_row):
            if isinstance(row, DataError) or isinstance(texts, DataError):
                yield Verdict("", BAD_ROW_REASON, texts.render() if isinstance(texts, DataError) else "")
                continue
            found = ((reason, evidence) for reason, check in rules.items() if (evidence := check(row, texts)))
            yield Verdict(texts.prompt, *next(found, ()))


def verdicts(rows: Iterable[NumberedRow], what: RowRules, processes: int = 0) -> Iterator[Verdict]:
    """A verdict per row, in order, whatever the number of `processes` (0: one per core, at most `MOST`).

    Raises: DataError of the first bad row, where `what.on_bad_row` is "error", and when a process was ended.
    """
    processes = processes or min(_cores(), MOST)
    remaining, rules = iter(rows), what.rules()
    yield from what.verdicts(remaining if processes == 1 else islice(remaining, ALONE), rules)
    batch, unread = _next_batch(remaining)
    if not batch and unread is None:
        return
    waiting: deque[Future[list[Verdict]]] = deque()
    # Spawned, not forked: the parent may have threads.
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (what,)) as pool:
        while batch:
            waiting.append(pool.submit(_checked, batch))
            if len(waiting) > 2 * processes:
                yield from _result(waiting.popleft())
            batch, unread = ([], unread) if unread is not None else _next_batch(remaining)
        while waiting:
            yield from _result(waiting.popleft())
        if unread is not None:  # rows before it were looked at first
            raise unread


def _next_batch(rows: Iterator[NumberedRow]) -> tuple[list[NumberedRow], DataError | None]:
    """The next rows, and the error with which reading them ended."""
    batch: list[NumberedRow] = []
    try:
        for row in islice(rows, BATCH):
            batch.append(row)
    except DataError as error:
        return batch, error
    return batch, None


def _result(checked: Future[list[Verdict]]) -> list[Verdict]:
    try:
        return checked.result()
    except BrokenProcessPool:
        raise DataError(
            "a process that checks rows was ended from outside",
            fix="if memory ran out, use fewer cores: taskset -c 0 rlhf data filter ...",
        ) from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_at_work: list[Callable[[Sequence[NumberedRow]], list[Verdict]]] = []  # in a process of the pool


def _begin(what: RowRules) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process
    rules = what.rules()
    _at_work.append(lambda rows: [*what.verdicts(rows, rules)])


def _end_with_parent() -> None:
    """A killed parent closes no pipe: its processes hold the other end themselves."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _checked(rows: Sequence[NumberedRow]) -> list[Verdict]:
    return _at_work[0](rows)
