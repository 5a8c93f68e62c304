"""Checks a data file before anything is trained on it: what it is, which stages can use it, what is wrong, the cost.

Rows are read once and forgotten; what is kept of each is a few hashes and its length (under 100 bytes for a
pair), so that files of millions of rows can be checked. Nothing here raises for what is in the file: a file that
cannot be read is a report that says so.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf.curate.check.cost import Costs, Counted, Counting
from rlhf.curate.check.cost import Counter as TokenCounter
from rlhf.curate.check.findings import MAX_PLACES, Finding, Findings
from rlhf.curate.check.rows import READ_KEYS, RowChecks, asked_key
from rlhf.curate.check.seen import SeenKeys
from rlhf.curate.formats.public_rows import COLUMNS, recognise_row
from rlhf.curate.formats.recognise import recognise
from rlhf.curate.output import progress
from rlhf.data.formats import Record, described, parse, quoted_keys, sniff
from rlhf.data.readers import Location, locate, read_rows
from rlhf.data.records import Demonstration, Prompt, Ranking, demonstration_of, prompt_of
from rlhf.errors import DataError, RlhfError

Stage = Literal["sft", "reward", "ppo"]
Status = Literal[0, 1, 2]
STAGES: dict[Stage, type[Record]] = {"sft": Demonstration, "reward": Ranking, "ppo": Prompt}
MAX_BAD_START = 10_000  # rows; where none of so many can be used, the file is not read on
BATCH = 256  # rows whose tokens are counted at once


@dataclass(slots=True)
class CheckReport:
    """What a check found. `status`: 0 usable, 1 not usable as it is, 2 not readable as rows.

    `stages` counts the rows each stage could train on; `usable_for` are those that can take the whole file.
    `tokens` holds total, median, 95th percentile and longest of a row's sequence; `cost` what `Costs.of` says.
    """

    path: str
    stage: Stage | None = None
    status: Status = 0
    format: str = ""
    rows: int = 0
    bad_rows: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    usable_for: list[str] = field(default_factory=list)
    roles: dict[str, int] = field(default_factory=dict)
    hangul_share: float | None = None
    tokens: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"findings": [finding.as_dict() for finding in self.findings]}


def check_file(
    path: str | Path,
    stage: Stage | None = None,
    *,
    against: Sequence[str | Path] = (),
    max_length: int | None = None,
    counting: Counting = Counting(),
    costs: Costs = Costs(),
) -> CheckReport:
    """Checks one file (JSONL, JSON array, CSV, or `datasets` folder) for one stage, or for any.

    Args:
        path: the file; of a folder with splits, `folder#split`.
        against: files whose prompts should not be in this one.
        max_length: tokens a sequence may have.

    Raises:
        RlhfError: for options that cannot be used (the tokenizer, the costs), never for the file.
    """
    check = _Check(str(path), stage, counting.counter(), max_length)
    try:
        check.read()
        for other in against:
            check.compare(str(other))
    except (DataError, OSError, MemoryError) as error:
        check.unreadable(error)
    return check.report(costs)


class _Check:
    """One pass over one file."""

    def __init__(self, path: str, stage: Stage | None, counter: TokenCounter, max_length: int | None) -> None:
        self.path, self.stage, self.counter, self.max_length = path, stage, counter, max_length
        self.findings = Findings()
        special = counter.tokenizer.special_texts if isinstance(counter, Counted) else ()
        self.checks = RowChecks(self.findings, special)
        self.status: Status = 0
        self.format = ""
        self.keys: frozenset[str] = frozenset()
        self.rows = self.bad = self.total = 0
        self.lengths = array("I")
        self.kinds: Counter[str] = Counter()
        self.waiting: list[tuple[int, Record]] = []

    def read(self) -> None:
        """Every row of the file."""
        location = locate(self.path)
        if not location.path.is_dir() and (found := recognise(location.path)) is not None:
            code = "raw-format" if found.importable else "unreadable"
            self.findings.add(code, 0, title=f"this is {found.name}", fix=found.fix)
            self.status = 1 if found.importable else 2
            return
        for line, row in progress(read_rows(location), "checking"):
            self.rows += 1
            if not self._row(line, row):
                self.bad += 1
            if self.bad == self.rows == MAX_BAD_START:
                self.findings.add("no-rows", 0, title=f"none of the first {self.rows:,} rows can be used; not read on")
                break
        self._count_tokens()
        self.checks.repeated()
        if not self.rows:
            self.findings.add("no-rows", 0)

    def _row(self, line: int, row: Mapping[str, Any] | DataError) -> bool:
        """Whether the row can be used."""
        if isinstance(row, DataError):
            self.findings.add("broken-row", line, title=_title(row), fix=row.fix)
            return False
        if not self.format and not self._sniffed(line, row):
            return False
        if frozenset(row) & READ_KEYS != self.keys:
            self.findings.add("mixed-keys", line, quoted_keys(row)[:120])
        record = self.checks.parsed(row, self.format, line)
        if record is None:
            return False
        kinds = _stages_of(record)
        self.kinds.update(kinds)
        self.checks.record(record, line)
        if self.stage and self.stage not in kinds and not (isinstance(record, Ranking) and record.all_tied):
            self.findings.add("not-for-stage", line, title=f"rows that hold no {STAGES[self.stage].__name__}")
            return False
        self.waiting.append((line, _for_stage(record, self.stage)))
        if len(self.waiting) >= BATCH:
            self._count_tokens()
        return True

    def _sniffed(self, line: int, row: Mapping[str, Any]) -> bool:
        """Takes the format from the first row that has one; training asks the first row alone."""
        try:
            self.format = sniff(row)
        except DataError as error:
            fix = error.fix or _import_hint(self.path, row) or f"rows of: {described()}"
            self.findings.add("unknown-format", line, title=error.problem, fix=fix)
            return False
        self.keys = frozenset(row) & READ_KEYS
        return True

    def _count_tokens(self) -> None:
        counts = self.counter.rows([record for _, record in self.waiting])
        for (line, _), (total, longest) in zip(self.waiting, counts, strict=True):
            self.total += total
            self.lengths.append(longest)
            if self.max_length is not None and longest > self.max_length:
                self.findings.add("too-long", line, f"{longest:,} tokens", title=f"rows over {self.max_length} tokens")
        self.waiting.clear()

    def compare(self, other: str) -> None:
        """Notes prompts that the other file has too."""
        try:
            meetings = self.checks.prompts.within(_prompts_of(other), MAX_PLACES)
        except (DataError, OSError) as error:
            self.findings.add("against", 0, title=f"{other}: {_problem(error)}")
            return
        for index, meeting in enumerate(meetings.first):
            count = 1 if index else meetings.total - len(meetings.first) + 1
            title = f"prompts that are in {other} too"
            self.findings.add("leak", meeting.line, f"{other}:{meeting.other}", title=title, count=count)

    def unreadable(self, error: DataError | OSError | MemoryError) -> None:
        """The reading ended in an error that leaves no next row."""
        fix = error.fix or error.expected if isinstance(error, DataError) else ""
        self.findings.add("unreadable", 0, title=_problem(error), fix=fix)
        self.status = 2

    def report(self, costs: Costs) -> CheckReport:
        """All that was found."""
        stages: dict[str, int] = {name: self.kinds[name] for name in STAGES if self.kinds[name]}
        tied = sum(finding.count for finding in self.findings.sorted() if finding.code == "all-tied")
        whole = [name for name, count in stages.items() if count == self.rows - (tied if name != "ppo" else 0)]
        wanted = self.stage in whole if self.stage else bool(whole)
        self._note_unused_keys()
        checks = self.checks
        errors = any(finding.severity == "error" and finding.code != "against" for finding in self.findings.sorted())
        status: Status = self.status or (0 if wanted and not errors else 1)
        if self.rows and self.rows == sum(each.count for each in self.findings.sorted() if each.code == "broken-row"):
            status = 2
        return CheckReport(
            path=self.path,
            stage=self.stage,
            status=status,
            format=self.format,
            rows=self.rows,
            bad_rows=self.bad,
            stages=stages,
            usable_for=whole if status == 0 else [],
            roles=dict(checks.roles),
            hangul_share=checks.hangul / checks.letters if checks.letters else None,
            tokens=self._tokens(),
            cost=costs.of(self.total) if self.total else {},
            findings=self.findings.sorted(),
        )

    def _note_unused_keys(self) -> None:
        for key, _ in self.checks.unused.most_common(MAX_PLACES):
            self.findings.add("unused-keys", 0, self.checks.unused_examples[key])
        if (more := len(self.checks.unused) - MAX_PLACES) > 0:
            self.findings.add("unused-keys", 0, count=more)

    def _tokens(self) -> dict[str, Any]:
        if not self.lengths:
            return {}
        import numpy

        lengths = numpy.frombuffer(self.lengths, dtype=numpy.uint32)
        median, high = numpy.percentile(lengths, (50, 95))
        summary = {"median": int(median), "p95": int(high), "longest": int(lengths.max())}
        return {"method": self.counter.method, "total": self.total, **summary}


def _stages_of(record: Record) -> tuple[Stage, ...]:
    """The stages that can train on a record."""
    if isinstance(record, Ranking):
        return ("ppo",) if record.all_tied else ("sft", "reward", "ppo")
    return ("ppo",) if isinstance(record, Prompt) else ("sft", "ppo")


def _for_stage(record: Record, stage: Stage | None) -> Record:
    """The record as the stage reads it."""
    if stage == "ppo" and not isinstance(record, Prompt):
        return prompt_of(record)
    return demonstration_of(record) if stage == "sft" and isinstance(record, Ranking) else record


def _prompts_of(path: str) -> SeenKeys:
    """Hashes of the prompts of a file; rows that cannot be read are passed over."""
    seen = SeenKeys()
    for line, record in _records(locate(path)):
        turns = record.prompt if isinstance(record, Ranking) else record.messages
        seen.add(asked_key(turns[:-1] if isinstance(record, Demonstration) else turns), line)
    if not len(seen):
        raise DataError("no row that can be read", where=path)
    return seen


def _records(location: Location) -> Iterator[tuple[int, Record]]:
    format = ""
    for line, row in progress(_rows_only(read_rows(location)), "comparing"):
        try:
            format = format or sniff(row)
            yield line, parse(row, format, "")
        except DataError:
            continue


def _rows_only(rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((line, row) for line, row in rows if not isinstance(row, DataError))


def _import_hint(path: str, row: Mapping[str, Any]) -> str:
    """How `rlhf data import` makes rows of a public format, where it knows these keys."""
    try:
        name = recognise_row(row)
    except DataError:
        return ""
    if name == "csv" and not all(any(key in row for key in COLUMNS[role]) for role in ("prompt", "response")):
        return ""
    return f"rlhf data import --format {name} --in {path} --out rows.jsonl makes rows of it"


def _title(error: DataError) -> str:
    """The problem without what differs from row to row."""
    if error.problem.endswith("is not UTF-8"):
        return "bytes that are not UTF-8"
    return error.problem.partition(":")[0] if error.problem.startswith("invalid JSON") else error.problem


def _problem(error: RlhfError | OSError | MemoryError) -> str:
    if isinstance(error, RlhfError):
        return f"{error.where}: {error.problem}" if error.where else error.problem
    return getattr(error, "strerror", None) or "too large to read into memory"
