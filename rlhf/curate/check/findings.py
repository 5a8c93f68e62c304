"""Findings of the check of a data file: one per kind of problem, with its severity, places and fix."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlhf.curate.check.seen import KeyMatches

Severity = Literal["error", "warning", "note"]
MAX_PLACES = 5  # shown per finding
MAX_SHOWN = 400  # characters of a detail, a title or a fix
MAX_GROUPS = 12  # findings of one code with different titles; further ones are merged
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Rule:
    """The severity of a kind of problem, its title, and what to do about it."""

    severity: Severity
    title: str
    fix: str


_FILTER = "rlhf data filter --clean removes them"
_SKIP = "correct the rows, or train with data.on_bad_row=skip, which skips them"
RULES: dict[str, Rule] = {
    "unreadable": Rule("error", "cannot be read", ""),
    "raw-format": Rule("error", "holds no rows yet", ""),
    "unknown-format": Rule("error", "no known row format", ""),
    "no-rows": Rule("error", "no rows", "give a file with at least one row"),
    "broken-row": Rule("error", "rows that cannot be read", "write these lines again"),
    "bad-row": Rule("error", "rows that violate their format", _SKIP),
    "not-for-stage": Rule("error", "rows this stage cannot use", "choose another file for this stage"),
    "all-tied": Rule("warning", "rankings in which all answers tie, skipped in training", "rank them, or drop them"),
    "conflict": Rule("warning", "pairs ranked both ways", "keep one of the two rows, or judge the pair again"),
    "same-answers": Rule("warning", "equal answers ranked against each other", "drop one of the answers"),
    "shows-nothing": Rule("warning", "texts without a visible character", "drop these rows"),
    "duplicate-row": Rule("warning", "rows that repeat an earlier one", "rlhf data filter drops duplicates"),
    "duplicate-prompt": Rule("note", "prompts of an earlier row", "fine where they have other answers"),
    "echo": Rule("warning", "answers that repeat their prompt", "drop these rows"),
    "leak": Rule("warning", "prompts that are also in another file", "rlhf data split keeps a prompt in one file"),
    "special-token": Rule("warning", "text that looks like a special token or a marker of a template", _FILTER),
    "mojibake": Rule("warning", "text decoded with the wrong encoding", "read the original again as UTF-8 or CP949"),
    "control": Rule("warning", "control or private characters", _FILTER),
    "invisible": Rule("warning", "zero-width or direction characters", _FILTER),
    "not-nfc": Rule("note", "text that is not NFC", "rlhf composes it when reading; other tools may not"),
    "personal": Rule("warning", "personal data", "rlhf data filter --pii mask"),
    "too-long": Rule("warning", "rows too long for the model", "training truncates them; raise the limit or drop them"),
    "not-korean": Rule("note", "rows whose letters are mostly not Hangul", "drop them if they are not wanted"),
    "unused-keys": Rule("note", "keys that no stage reads", "rename them if they hold data you want"),
    "mixed-keys": Rule("note", "rows with other keys than the first row", "use one format per file"),
    "against": Rule("error", "a file to compare with cannot be read", ""),
}


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A line of the file (0: the file as a whole), and what was found there."""

    line: int
    detail: str = ""


@dataclass(slots=True)
class Finding:
    """One kind of problem: how often it occurs, and its first few occurrences."""

    code: str
    severity: Severity
    title: str
    fix: str
    count: int = 0
    places: list[Occurrence] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Findings:
    """Collects findings in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, code: str, line: int, detail: str = "", *, title: str = "", fix: str = "", count: int = 1) -> None:
        """Counts a problem at a line; `title` and `fix` replace those of the rule."""
        rule = RULES[code]
        detail, title, fix = printable(detail), printable(title), printable(fix)
        key = (code, title)
        if key not in self._found and sum(known == code for known, _ in self._found) >= MAX_GROUPS:
            key, title = (code, "other"), f"{rule.title}, for other reasons"
        if key not in self._found:
            self._found[key] = Finding(code, rule.severity, title or rule.title, fix or rule.fix)
        finding = self._found[key]
        finding.count += count
        if len(finding.places) < MAX_PLACES and (line or detail):
            finding.places.append(Occurrence(line, detail))

    def add_matches(self, code: str, matches: KeyMatches, where: str, *, title: str = "") -> None:
        """Counts rows that match other rows; `where` comes before the line of the other row."""
        for index, match in enumerate(matches.first):
            count = 1 if index else matches.total - len(matches.first) + 1
            self.add(code, match.line, f"{where}{match.other}", title=title, count=count)

    def count_of(self, code: str) -> int:
        """How often a kind of problem occurs, over all its titles."""
        return sum(finding.count for finding in self._found.values() if finding.code == code)

    def sorted(self) -> list[Finding]:
        """Errors first, then by count."""
        return sorted(self._found.values(), key=lambda finding: (_ORDER[finding.severity], -finding.count))


def printable(text: str) -> str:
    """Text of a file for display: invisible characters are escaped, long text is truncated."""
    shown = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in shown)
