"""Labels in SQLite: which row each person was shown, in which order, and every click, committed before it is answered.

A killed process loses nothing that was answered, and the next start continues. A share of the rows (`overlap`, for
the agreement) goes to everyone; each of the others goes to the first person who asks for a row. A row that was skipped,
or left open for half an hour, goes to somebody else.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.artifacts.database import Database
from rlhf.curate.label.draft import DRAFT, Draft, Judgement, Verdict, judgement_of
from rlhf.curate.label.items import ITEM, LabelItem
from rlhf.errors import DataError

CLAIM_S = 1800.0
OWNER = ""  # the name under which the owner's token is kept; no person can have it
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
  number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL, shared INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS people (name TEXT PRIMARY KEY, token TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS work (
  annotator TEXT NOT NULL, item INTEGER NOT NULL REFERENCES items, turn INTEGER NOT NULL, shown TEXT NOT NULL,
  draft TEXT NOT NULL, verdict TEXT, updated_s REAL NOT NULL, PRIMARY KEY (annotator, item));
CREATE INDEX IF NOT EXISTS work_by_item ON work (item);
"""
_FREE = """
SELECT number, key FROM items
WHERE number NOT IN (SELECT item FROM work WHERE annotator = ?)
  AND (shared OR number NOT IN (
    SELECT item FROM work WHERE verdict IN ('ranked', 'tie', 'bad') OR (verdict IS NULL AND updated_s > ?)))
"""
_OPEN = "SELECT number, body, shown, draft FROM work JOIN items ON item = number WHERE annotator = ?"


@dataclass(frozen=True, slots=True)
class OpenRow:
    """The row a person is labelling; `shown` numbers its answers in that person's order."""

    number: int
    item: LabelItem
    shown: tuple[int, ...]
    draft: Draft


class LabelStore:
    """The file `<out>.sqlite`; safe to use from several threads.

    Args:
        path: opened, or created, readable by its owner alone, because it holds the tokens of the links.
        seed: with a person's name, decides that person's order of rows and of answers.

    Raises: ArtifactError, here and in every method, when the file cannot be read or written.
    """

    def __init__(self, path: Path, *, seed: int = 17) -> None:
        self.path, self.seed = path, seed
        self._database = Database(path, SCHEMA, option="--out")

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def add_items(self, items: Sequence[LabelItem], *, overlap: float = 0.0) -> int:
        """Adds the rows that are not there yet, a share `overlap` of them for everyone; returns how many were new.

        Raises: DataError when a row that people have labelled is not among `items`.
        """
        given = {item.key: item for item in items}
        with self._database.change():
            self._check_labelled(given)
            known = {row["key"] for row in self._database.rows("SELECT key FROM items")}
            self._database.run_many("DELETE FROM items WHERE key = ?", [(key,) for key in known - set(given)])
            new = sorted((key for key in given if key not in known), key=lambda key: self._draw("shared", key))
            num_shared = round(overlap * len(new))
            rows = [(key, ITEM.dump_json(given[key]).decode(), place < num_shared) for place, key in enumerate(new)]
            self._database.run_many("INSERT INTO items (key, body, shared) VALUES (?, ?, ?)", rows)
        return len(new)

    def token_of(self, name: str) -> str:
        """The secret in a person's link; created once, the same after a restart."""
        self._database.run("INSERT OR IGNORE INTO people VALUES (?, ?)", name, secrets.token_urlsafe(24))
        return str(self._database.value("SELECT token FROM people WHERE name = ?", name))

    def open_row(self, annotator: str) -> OpenRow | None:
        """The earliest row this person has not submitted, else a new one; None when all are done."""
        with self._database.change():
            found = self._database.row(f"{_OPEN} AND verdict IS NULL ORDER BY turn LIMIT 1", annotator)
            if found is None and (free := self._free(annotator)):
                number, _ = min(free, key=lambda row: self._draw(annotator, row["key"]))
                self._begin(annotator, number)
                found = self._database.row(f"{_OPEN} AND number = ?", annotator, number)
        if found is None:
            return None
        number, body, shown, draft = found
        return OpenRow(number, ITEM.validate_json(body), tuple(json.loads(shown)), DRAFT.validate_json(draft))

    def save(self, annotator: str, number: int, draft: Draft) -> None:
        """Keeps a row that is not submitted yet. Raises: DataError for a row this person was not shown."""
        with self._database.change():
            self._write(annotator, number, draft, None)

    def submit(self, annotator: str, number: int, verdict: Verdict, draft: Draft) -> None:
        """Submits a row. Raises: DataError for a row this person was not shown, or an incomplete ranking."""
        with self._database.change():
            self._write(annotator, number, draft, verdict)

    def undo(self, annotator: str) -> bool:
        """Opens the row that was submitted last again, as it was. False when there is none."""
        statement = (
            "UPDATE work SET verdict = NULL, updated_s = ? WHERE annotator = ? AND turn ="
            " (SELECT max(turn) FROM work WHERE annotator = ? AND verdict IS NOT NULL)"
        )
        return self._database.run(statement, time.time(), annotator, annotator) == 1

    def progress(self, annotator: str) -> tuple[int, int]:
        """How many rows a person has submitted, and how many are left for them now."""
        query = "SELECT count(verdict), count(*) FROM work WHERE annotator = ?"  # a NULL verdict is not counted
        [(done, begun)] = self._database.rows(query, annotator)
        return done, begun - done + len(self._free(annotator))

    def judgements(self) -> list[Judgement]:
        """Everything submitted, skipped rows too, in the order of the rows, then of people's names."""
        rows = self._database.rows(
            "SELECT body, annotator, verdict, draft, shown FROM work JOIN items ON item = number"
            " WHERE verdict IS NOT NULL ORDER BY number, annotator"
        )
        return [
            judgement_of(ITEM.validate_json(body), name, verdict, DRAFT.validate_json(draft), tuple(json.loads(shown)))
            for body, name, verdict, draft, shown in rows
        ]

    def num_items(self) -> int:
        """Rows in the store."""
        return int(self._database.value("SELECT count(*) FROM items"))

    def num_people(self) -> int:
        """People who were shown a row."""
        return int(self._database.value("SELECT count(DISTINCT annotator) FROM work"))

    def knows(self, annotator: str) -> bool:
        """Whether this person was shown a row before."""
        return self._database.row("SELECT 1 FROM work WHERE annotator = ? LIMIT 1", annotator) is not None

    def _check_labelled(self, given: Mapping[str, LabelItem]) -> None:
        worked = self._database.rows("SELECT key, body FROM items WHERE number IN (SELECT item FROM work)")
        missing = [body for key, body in worked if key not in given]
        if missing:
            text = ITEM.validate_json(missing[0]).prompt[-1].content
            raise DataError(
                f"holds labels of {len(missing)} rows that are not in --in, e.g. {text[:40]!r}",
                where=str(self.path),
                fix="give the file the labelling began with (rows may be added), or choose another --out",
            )

    def _draw(self, *names: str) -> bytes:
        """A number for these names under the seed; sorting by it gives a random order that new rows do not change."""
        return hashlib.sha256("\0".join((str(self.seed), *names)).encode()).digest()

    def _free(self, annotator: str) -> list[sqlite3.Row]:
        """`number` and `key` of the rows this person could be given now."""
        return self._database.rows(_FREE, annotator, time.time() - CLAIM_S)

    def _begin(self, annotator: str, number: int) -> None:
        [(body, key)] = self._database.rows("SELECT body, key FROM items WHERE number = ?", number)
        answers = range(len(ITEM.validate_json(body).responses))
        shown = sorted(answers, key=lambda answer: self._draw(annotator, key, str(answer)))
        turn = self._database.value("SELECT count(*) FROM work WHERE annotator = ?", annotator)
        values = (annotator, number, turn, json.dumps(shown), "{}", None, time.time())
        self._database.run("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

    def _write(self, annotator: str, number: int, draft: Draft, verdict: Verdict | None) -> None:
        shown = self._database.value("SELECT shown FROM work WHERE annotator = ? AND item = ?", annotator, number)
        if shown is None:
            raise DataError(f"row {number} was not shown to {annotator}", fix="reload the page")
        draft.check(len(json.loads(shown)), verdict)
        statement = "UPDATE work SET draft = ?, verdict = ?, updated_s = ? WHERE annotator = ? AND item = ?"
        self._database.run(statement, DRAFT.dump_json(draft).decode(), verdict, time.time(), annotator, number)
