"""The checks of one row: its record, its texts, and what it adds to the counts of its file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import combinations
from typing import Any

from rlhf.curate.check.findings import MAX_PLACES, Findings
from rlhf.curate.check.seen import Judgements, SeenKeys
from rlhf.curate.privacy import find_personal
from rlhf.curate.text_faults import text_faults
from rlhf.data.formats import Record, parse, sniff
from rlhf.data.records import Demonstration, Message, Ranking
from rlhf.errors import DataError

TEXT_KEYS = (
    *("prompt", "messages", "instruction", "input", "chosen", "rejected", "responses"),
    *("response", "completion", "output"),
)
READ_KEYS = frozenset({*TEXT_KEYS, "ranks", "scores", "source", "criteria"})
MESSAGE_KEYS = frozenset({"role", "content", "input"})
SYNONYMS = {
    "prompt": ("instruction", "question", "query", "input"),
    "response": ("answer", "output", "completion"),
    "output": ("response", "answer", "completion"),
}
MAX_ANSWERS = 16  # of a row whose pairs are compared: their number grows with the square
MIN_HANGUL = 0.5  # of a row's letters; below it the row is called not Korean
_HANGUL, _LETTERS = re.compile("[가-힣ㄱ-ㆎ\u1100-\u11ff]+"), re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d+")


class RowChecks:
    """Everything that is remembered of the rows of a file: counts, hashes, findings; never the rows."""

    def __init__(self, findings: Findings, special_texts: tuple[str, ...] = ()) -> None:
        self.findings, self.special_texts = findings, special_texts
        self.find_personal = _personal_finder()
        self.rows, self.prompts, self.judgements = SeenKeys(), SeenKeys(), Judgements()
        self.roles: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        self.unused_examples: dict[str, str] = {}
        self.hangul = self.letters = 0

    def parsed(self, row: Mapping[str, Any], format: str, line: int) -> Record | None:
        """The row's record; None after noting why there is none."""
        try:
            record = parse(row, format, "")
        except DataError as error:
            place = f"{error.where}: " if error.where else ""
            title = _NUMBER.sub("#", f"{place}{error.problem}".removeprefix("key "))
            fix = error.fix or _synonym_hint(row, error)
            self.findings.add("bad-row", line, _other_format(row, format), title=title, fix=fix)
            return None
        self.texts(row, line)
        return record

    def texts(self, row: Mapping[str, Any], line: int) -> None:
        """Faults of every text of a row, as it is written."""
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
        for key in row.keys() - READ_KEYS:
            self.unused[str(key)] += 1
            self.unused_examples.setdefault(str(key), f"`{key}`: {str(row[key])[:40]!r}")
        for message in row.get("messages") or ():
            for key in message.keys() - MESSAGE_KEYS:
                self.unused[f"messages[].{key}"] += 1
                self.unused_examples.setdefault(f"messages[].{key}", f"`messages[].{key}`: {str(message[key])[:40]!r}")

    def record(self, record: Record, line: int) -> None:
        """Remembers a record, to find repeated ones at the end."""
        turns = record.prompt if isinstance(record, Ranking) else record.messages
        answers = record.responses if isinstance(record, Ranking) else ()
        if isinstance(record, Demonstration):
            turns, answers = turns[:-1], (turns[-1].content,)
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
        answers = list(zip(said, record.ranks, strict=True))[:MAX_ANSWERS]
        for (first, first_rank), (second, second_rank) in combinations(answers, 2):
            if first_rank != second_rank:
                better, worse = (first, second) if first_rank < second_rank else (second, first)
                equal = equal or better == worse
                self.judgements.add(asked, better, worse, line)
        if equal:
            self.findings.add("same-answers", line)

    def repeated(self) -> None:
        """Notes what repeats or contradicts an earlier row; to be called once, at the end."""
        for code, meetings in (
            ("duplicate-row", self.rows.repeated(MAX_PLACES)),
            ("duplicate-prompt", self.prompts.repeated(MAX_PLACES)),
            ("conflict", self.judgements.conflicts(MAX_PLACES)),
        ):
            for index, meeting in enumerate(meetings.first):
                count = 1 if index else meetings.total - len(meetings.first) + 1
                self.findings.add(code, meeting.line, f"as line {meeting.other}", count=count)


def _personal_finder() -> Callable[[str], dict[str, int]]:
    """Finds nothing where ko-pii is not installed: a check must not need an extra."""
    return find_personal if find_spec("ko_pii") else lambda text: {}


def texts_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, text) of every text of a row that a stage could read."""
    for key in TEXT_KEYS:
        if key in row:
            yield from _texts(key, row[key])


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for index, each in enumerate(value):
            if isinstance(each, dict):
                yield from ((f"{key}[{index}].{name}", text) for name in MESSAGE_KEYS for text in _text_at(each, name))
            elif isinstance(each, str):
                yield f"{key}[{index}]", each


def _text_at(message: Mapping[str, Any], name: str) -> Iterator[str]:
    if name != "role" and isinstance(message.get(name), str):
        yield message[name]


def compact(text: str) -> str:
    """A text without its whitespace: texts equal so say the same. Records hold NFC already."""
    return "".join(text.split())


def asked_key(turns: tuple[Message, ...]) -> str:
    """What was asked, the whole conversation before the answer: equal for equal prompts."""
    return "\0".join(f"{turn.role[0]}{compact(turn.content)}{compact(turn.input)}" for turn in turns)


def _synonym_hint(row: Mapping[str, Any], error: DataError) -> str:
    """Which key to rename where one is missing and the row has another of that meaning."""
    missing = error.where.removeprefix("key `").removesuffix("`")
    if not error.problem.startswith("is missing"):
        return ""
    return next((f"rename `{key}` to `{missing}`" for key in SYNONYMS.get(missing, ()) if key in row), "")


def _other_format(row: Mapping[str, Any], format: str) -> str:
    """The format the row has instead, where it has one."""
    try:
        name = sniff(row)
    except DataError:
        return ""
    return "" if name == format else f"a row of format {name}"
