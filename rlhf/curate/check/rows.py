"""The checks of one row: its record, its texts, and its share in the counts of the file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import combinations
from typing import Any

from rlhf.curate.check.findings import MAX_PLACES, Findings
from rlhf.curate.check.seen import SeenKeys
from rlhf.curate.privacy import find_personal
from rlhf.curate.row_texts import compact, texts_of
from rlhf.curate.text_faults import text_faults
from rlhf.data.formats import FORMATS, parse, sniff
from rlhf.data.records import Message, Ranking, Record
from rlhf.data.row_keys import unread
from rlhf.errors import DataError

SYNONYMS = {
    "prompt": ("instruction", "question", "query", "input"),
    "response": ("answer", "output", "completion"),
    "output": ("response", "answer", "completion"),
}
MAX_ANSWERS = 16  # compared with each other per row: the pairs grow with the square
MIN_HANGUL = 0.5  # of the letters of a row; below it the row is reported as not Korean
_HANGUL, _LETTERS = re.compile("[가-힣ㄱ-ㆎ\u1100-\u11ff]+"), re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")


class RowChecks:
    """What is kept of the rows of a file: counts, hashes and findings, never the rows themselves."""

    def __init__(self, findings: Findings, special_texts: tuple[str, ...] = ()) -> None:
        self.findings, self.special_texts = findings, special_texts
        # Without ko-pii nothing is found, because a check must not need an extra.
        self.find_personal = find_personal if find_spec("ko_pii") else lambda text: {}
        self.rows, self.prompts = SeenKeys(), SeenKeys()
        self.pairs, self.preferences = SeenKeys(), SeenKeys()  # of ranked answers: without and with which is better
        self.roles: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.unread_examples: dict[str, str] = {}
        self.hangul = self.letters = 0

    def parsed(self, row: Mapping[str, Any], format: str, line: int) -> Record | None:
        """The record of a row; None for a bad row, which is noted."""
        for path, value in unread(row, FORMATS[format].reads):
            self.unread_examples.setdefault(path, f"`{path}`: {str(value)[:40]!r}")
        try:
            record = parse(row, format, "", unread=self.unread)
        except DataError as error:
            place = f"{error.where}: " if error.where else ""
            title = _NUMBER.sub("#", f"{place}{error.problem}".removeprefix("key "))
            fix = error.fix or _synonym_hint(row, error)
            self.findings.add("bad-row", line, _other_format(row, format), title=title, fix=fix)
            return None
        self.texts(row, line)
        return record

    def texts(self, row: Mapping[str, Any], line: int) -> None:
        """Notes the faults of every text of a row, as written."""
        hangul = letters = 0
        found: dict[str, str] = {}
        for key, text in texts_of(row):
            hangul += sum(map(len, _HANGUL.findall(text)))
            letters += sum(map(len, _LETTERS.findall(text)))
            for fault in text_faults(text, self.special_texts):
                found.setdefault(fault.code, f"{key}: {fault.detail}")
            for name, count in self.find_personal(text).items():
                found.setdefault("personal", f"{key}: {count} {name}")
        for code, detail in found.items():
            self.findings.add(code, line, detail)
        if letters and hangul < MIN_HANGUL * letters:
            self.findings.add("not-korean", line)
        self.hangul, self.letters = self.hangul + hangul, self.letters + letters

    def record(self, record: Record, line: int) -> None:
        """Keeps hashes of a record, to find repeated ones at the end."""
        turns, answers = record.prompt, record.answers
        self.roles.update(message.role for message in turns)
        self.roles["assistant"] += len(answers)
        asked, said = asked_key(turns), tuple(map(compact, answers))
        self.prompts.add(asked, line)
        ranks = record.ranks if isinstance(record, Ranking) else ()
        self.rows.add((asked, said, ranks), line)
        if any(answer == compact(turns[-1].content) for answer in said):
            self.findings.add("echo", line)
        if isinstance(record, Ranking):
            self._ranking(asked, said, record, line)

    def _ranking(self, asked: str, said: tuple[str, ...], record: Ranking, line: int) -> None:
        if record.all_tied:
            self.findings.add("all-tied", line)
        equal = False
        answers = sorted(list(zip(record.ranks, said, strict=True))[:MAX_ANSWERS])
        for (rank, better), (other, worse) in combinations(answers, 2):
            if rank < other:
                equal = equal or better == worse
                self.pairs.add((asked, min(better, worse), max(better, worse)), line)
                self.preferences.add((asked, better, worse), line)
        if equal:
            self.findings.add("same-answers", line)

    def repeated(self) -> None:
        """Notes rows that repeat or contradict an earlier row; to be called once, at the end."""
        self.findings.add_matches("duplicate-row", self.rows.repeated(MAX_PLACES), "as line ")
        self.findings.add_matches("duplicate-prompt", self.prompts.repeated(MAX_PLACES), "as line ")
        self.findings.add_matches("conflict", self.pairs.divided(self.preferences, MAX_PLACES), "as line ")


def asked_key(turns: tuple[Message, ...]) -> str:
    """A key of all turns before the answer, equal for prompts that only differ in whitespace."""
    return "\0".join(f"{turn.role[0]}{compact(turn.content)}{compact(turn.input)}" for turn in turns)


def _synonym_hint(row: Mapping[str, Any], error: DataError) -> str:
    """Which key to rename where one is missing and the row has a synonym of it."""
    missing = error.where.removeprefix("key `").removesuffix("`")
    if not error.problem.startswith("is missing"):
        return ""
    return next((f"rename `{key}` to `{missing}`" for key in SYNONYMS.get(missing, ()) if key in row), "")


def _other_format(row: Mapping[str, Any], format: str) -> str:
    """The other format that the row has, if any."""
    try:
        name = sniff(row)
    except DataError:
        return ""
    return "" if name == format else f"a row of format {name}"
