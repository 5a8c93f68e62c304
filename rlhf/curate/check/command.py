"""`rlhf data check`: what a data file is, which stages can train on it, what is wrong with it, and the cost.

Rows are streamed; only a few hashes and the length of each are kept (under 100 bytes for a pair), so files of
millions of rows can be checked. The content of the file never raises: a file that cannot be read gives a report
that says so.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlhf.config.flags import flag
from rlhf.curate.check.cost import CHARACTERS_PER_TOKEN, Costs, TokenCounter, token_counter
from rlhf.curate.check.findings import MAX_PLACES, CheckReport, Findings, Stage, Status
from rlhf.curate.check.rows import RowChecks, asked_key
from rlhf.curate.check.seen import SeenKeys
from rlhf.curate.formats.recognise import recognise
from rlhf.curate.output import progress
from rlhf.data.formats import FORMATS, described, sniff
from rlhf.data.public_shapes import import_hint
from rlhf.data.readers import locate, read_rows
from rlhf.data.records import Demonstration, Prompt, Ranking, Record, demonstration_of, prompt_of
from rlhf.data.row_values import quoted_keys
from rlhf.data.sources import parsed_rows
from rlhf.errors import DataError, RlhfError
from rlhf.html.templates import render

STAGES: dict[Stage, type[Record]] = {"sft": Demonstration, "reward": Ranking, "ppo": Prompt}
MAX_BAD_START = 10_000  # rows; where none of so many can be used, the check stops
BATCH = 256  # rows whose tokens are counted at once


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is checked, for which stage, and what decides tokens and cost."""

    file: str = flag(..., "JSONL, a JSON array, CSV, or a datasets folder (folder#split)", positional=True)
    stage: Stage | None = flag(None, "the stage that the file is for (default: any)")
    against: tuple[str, ...] = flag((), "files whose prompts must not be in this one", metavar="FILE", nargs="+")
    max_length: int | None = flag(None, "warn about rows that are longer", metavar="TOKENS")
    tokenizer: str = flag("", "count with the tokenizer of this model folder (default: estimate)", metavar="DIR")
    template: str | None = flag(
        None, "chat template for a tokenizer without one: kullm, or a Jinja file", metavar="NAME"
    )
    characters_per_token: float = flag(
        CHARACTERS_PER_TOKEN, "for the estimate; hosted models of 2023 took about 0.5 for Korean"
    )
    epochs: float = flag(1.0, "passes over the file")
    price: str = flag("", "price of training tokens, such as 0.03/1k or 25/1m", metavar="AMOUNT/TOKENS")
    tokens_per_second: float = flag(0.0, "measured training speed of all GPUs together")
    gpus: int = flag(1, "number of GPUs")
    json: bool = flag(False, "print the report as JSON")


def run(options: CheckOptions) -> int:
    """Checks the file and prints the report; returns its status."""
    report = check_file(options)
    if options.json:
        sys.stdout.write(f"{json.dumps(asdict(report), ensure_ascii=False, indent=2)}\n")
    else:
        sys.stdout.write(render("curate/check/report.txt.j2", report=report))
    return report.status


def check_file(options: CheckOptions) -> CheckReport:
    """Checks one file for one stage, or for any.

    Raises: RlhfError for options that cannot be used (the tokenizer, the costs), never for the file.
    """
    costs = Costs(options.epochs, options.price, options.tokens_per_second, options.gpus)
    counter = token_counter(options.tokenizer, options.template, options.characters_per_token)
    check = _Check(options, counter)
    try:
        check.read()
        for other in options.against:
            check.compare(other)
    except (DataError, OSError, MemoryError) as error:
        check.unreadable(error)
    return check.report(costs)


class _Check:
    """One pass over one file."""

    def __init__(self, options: CheckOptions, counter: TokenCounter) -> None:
        self.path, self.stage, self.max_length = options.file, options.stage, options.max_length
        self.counter = counter
        self.findings = Findings()
        self.checks = RowChecks(self.findings, counter.special_texts)
        self.status: Status = 0
        self.format = ""
        self.keys: frozenset[str] = frozenset()
        self.rows = self.bad = self.total = 0
        self.lengths = array("I")
        self.kinds: Counter[str] = Counter()
        self.waiting: list[tuple[int, Record]] = []

    def read(self) -> None:
        """Checks every row of the file."""
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
                self.findings.add("no-rows", 0, title=f"none of the first {self.rows:,} rows can be used")
                break
        self._count_tokens()
        self.checks.repeated()
        if not self.rows:
            self.findings.add("no-rows", 0)

    def _row(self, line: int, row: Mapping[str, Any] | DataError) -> bool:
        """Checks one row; returns whether it can be used."""
        if isinstance(row, DataError):
            self.findings.add("broken-row", line, title=_title(row), fix=row.fix)
            return False
        if not self.format and not self._sniffed(line, row):
            return False
        if self._read_keys(row) != self.keys:
            self.findings.add("mixed-keys", line, quoted_keys(row)[:120])
        record = self.checks.parsed(row, self.format, line)
        if record is None:
            return False
        kinds = _stages_of(record)
        self.kinds.update(kinds)
        self.checks.record(record, line)
        if self.stage and self.stage not in kinds and not (isinstance(record, Ranking) and record.all_tied):
            self.findings.add("not-for-stage", line, title=f"rows without a {STAGES[self.stage].__name__}")
            return False
        self.waiting.append((line, _for_stage(record, self.stage)))
        if len(self.waiting) >= BATCH:
            self._count_tokens()
        return True

    def _sniffed(self, line: int, row: Mapping[str, Any]) -> bool:
        """Takes the format from the first row of a known format (training looks at the first row alone)."""
        try:
            self.format = sniff(row)
        except DataError as error:
            fix = error.fix or import_hint(row, self.path) or f"rows of: {described()}"
            self.findings.add("unknown-format", line, title=error.problem, fix=fix)
            return False
        self.keys = self._read_keys(row)
        return True

    def _read_keys(self, row: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(row) & {re.split(r"[.\[]", path)[0] for path in FORMATS[self.format].reads}

    def _count_tokens(self) -> None:
        counts = self.counter.rows([record for _, record in self.waiting])
        for (line, _), (total, longest) in zip(self.waiting, counts, strict=True):
            self.total += total
            self.lengths.append(longest)
            if self.max_length is not None and longest > self.max_length:
                self.findings.add("too-long", line, f"{longest:,} tokens", title=f"rows over {self.max_length} tokens")
        self.waiting.clear()

    def compare(self, other: str) -> None:
        """Notes the prompts that are also in another file."""
        try:
            matches = self.checks.prompts.within(_prompts_of(other), MAX_PLACES)
        except (DataError, OSError) as error:
            self.findings.add("against", 0, title=f"{other}: {_problem(error)}")
            return
        self.findings.add_matches("leak", matches, f"{other}:", title=f"prompts that are also in {other}")

    def unreadable(self, error: DataError | OSError | MemoryError) -> None:
        """Notes an error after which no further row can be read."""
        fix = error.fix or error.expected if isinstance(error, DataError) else ""
        self.findings.add("unreadable", 0, title=_problem(error), fix=fix)
        self.status = 2

    def report(self, costs: Costs) -> CheckReport:
        """The report on everything that was read."""
        stages: dict[str, int] = {name: self.kinds[name] for name in STAGES if self.kinds[name]}
        tied = self.findings.count_of("all-tied")
        whole = [name for name, count in stages.items() if count == self.rows - (tied if name != "ppo" else 0)]
        wanted = self.stage in whole if self.stage else bool(whole)
        self._note_unused_keys()
        checks = self.checks
        errors = any(finding.severity == "error" and finding.code != "against" for finding in self.findings.sorted())
        status: Status = self.status or (0 if wanted and not errors else 1)
        if self.rows and self.rows == self.findings.count_of("broken-row"):
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
        for key, _ in self.checks.unread.most_common(MAX_PLACES):
            self.findings.add("unused-keys", 0, self.checks.unread_examples[key])
        if (more := len(self.checks.unread) - MAX_PLACES) > 0:
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
    """Hashes of the prompts of a file; rows that cannot be read are skipped."""
    seen = SeenKeys()
    for parsed in progress(parsed_rows(path), "comparing"):
        if not isinstance(parsed.record, DataError):
            seen.add(asked_key(parsed.record.prompt), parsed.line)
    if not len(seen):
        raise DataError("no row that can be read", where=path)
    return seen


def _title(error: DataError) -> str:
    """The problem without the parts that differ from row to row."""
    if error.problem.endswith("is not UTF-8"):
        return "bytes that are not UTF-8"
    return error.problem.partition(":")[0] if error.problem.startswith("invalid JSON") else error.problem


def _problem(error: RlhfError | OSError | MemoryError) -> str:
    if isinstance(error, RlhfError):
        return f"{error.where}: {error.problem}" if error.where else error.problem
    return getattr(error, "strerror", None) or "too large to read into memory"
