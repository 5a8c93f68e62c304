"""Labels in SQLite: who was shown what in which order, and every click, committed before it is answered.

A killed process loses nothing that was answered, and the next start goes on. A share of the rows goes to everyone
(`overlap`, for agreement); each of the others goes to the first person who gets to it. A row that was skipped, or
left open for half an hour, is given to somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhf.curate.label.draft import Draft, Judgement, Verdict, judgement_of
from rlhf.curate.label.items import LabelItem
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
WHERE number NOT IN (SELECT item FROM work WHERE annotator = :annotator)
  AND (shared OR number NOT IN (
    SELECT item FROM work WHERE verdict IN ('ranked', 'tie', 'bad') OR (verdict IS NULL AND updated_s > :since)))
"""


@dataclass(frozen=True, slots=True)
class OpenRow:
    """The row a person is at, its answers in that person's order."""

    number: int
    item: LabelItem
    shown: tuple[int, ...]
    draft: Draft

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers as shown."""
        return tuple(self.item.responses[answer] for answer in self.shown)


@dataclass(frozen=True, slots=True)
class LabelProgress:
    """How many rows a person has handed in, and how many are left for them now."""

    done: int
    left: int


class LabelStore:
    """The file `<out>.sqlite`; safe to use from several threads.

    Args:
        path: file to open or make; readable by its owner alone, for it holds the links' tokens.
        seed: with a person's name, decides that person's order of rows and of answers.

    Raises:
        DataError: `path` cannot be written or is no store.
    """

    def __init__(self, path: Path, *, seed: int = 17) -> None:
        self.path, self.seed = path, seed
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            problem = f"cannot be used for labels: {getattr(error, 'strerror', None) or error}"
            raise DataError(problem, where=str(path), fix="choose another --out") from None

    def close(self) -> None:
        """Ends all use of the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add_items(self, items: Sequence[LabelItem], *, overlap: float = 0.0) -> int:
        """Takes up the rows that are not there yet, a share `overlap` of them for everyone; how many were new.

        Raises DataError when a row that people have labelled is not among `items`.
        """
        given = {item.key: item for item in items}
        with self._change() as db:
            worked = dict(db.execute("SELECT key, body FROM items WHERE number IN (SELECT item FROM work)").fetchall())
            if missing := [key for key in worked if key not in given]:
                text = LabelItem.from_json(worked[missing[0]]).prompt[-1].content
                raise DataError(
                    f"holds labels of {len(missing)} rows that are not in --in, e.g. {text[:40]!r}",
                    where=str(self.path),
                    fix="give the file it was begun with (rows may be added), or choose another --out",
                )
            known = {key for (key,) in db.execute("SELECT key FROM items")}
            db.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in known - set(given)])
            new = sorted((key for key in given if key not in known), key=lambda key: self._draw("shared", key))
            num_shared = round(overlap * len(new))
            rows = [(key, given[key].to_json(), place < num_shared) for place, key in enumerate(new)]
            db.executemany("INSERT INTO items (key, body, shared) VALUES (?, ?, ?)", rows)
        return len(new)

    def token_of(self, name: str) -> str:
        """The secret in a person's link; made once, the same after a restart."""
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO people VALUES (?, ?)", (name, secrets.token_urlsafe(24)))
            return str(db.execute("SELECT token FROM people WHERE name = ?", (name,)).fetchone()[0])

    def open_row(self, annotator: str) -> OpenRow | None:
        """The row this person is at: the earliest that is not handed in, else a new one; None when all are done."""
        with self._change() as db:
            mine = "FROM work JOIN items ON item = number WHERE annotator = ?"
            found = db.execute(
                f"SELECT number, body, shown, draft {mine} AND verdict IS NULL ORDER BY turn LIMIT 1", (annotator,)
            ).fetchone()
            if found is None:
                free = self._free(annotator)
                if not free:
                    return None
                number, _ = min(free, key=lambda row: self._draw(annotator, row[1]))
                self._begin(annotator, number)
                found = db.execute(
                    f"SELECT number, body, shown, draft {mine} AND number = ?", (annotator, number)
                ).fetchone()
        number, body, shown, draft = found
        return OpenRow(number, LabelItem.from_json(body), tuple(json.loads(shown)), Draft.from_json(draft))

    def save(self, annotator: str, number: int, draft: Draft) -> None:
        """Keeps a row as it stands, not handed in. DataError for a row this person was not shown."""
        with self._change():
            draft.check(self._num_answers(annotator, number))
            self._write(annotator, number, draft, None)

    def submit(self, annotator: str, number: int, verdict: Verdict, draft: Draft) -> None:
        """Hands a row in. DataError for a row this person was not shown, or a ranking with answers left out."""
        with self._change():
            draft.check_verdict(verdict, self._num_answers(annotator, number))
            self._write(annotator, number, draft, verdict)

    def undo(self, annotator: str) -> bool:
        """Takes the last row that was handed in back; it is open again as it was. False when there is none."""
        with self._change() as db:
            changed = db.execute(
                "UPDATE work SET verdict = NULL, updated_s = ? WHERE annotator = ? AND turn ="
                " (SELECT max(turn) FROM work WHERE annotator = ? AND verdict IS NOT NULL)",
                (time.time(), annotator, annotator),
            )
            return changed.rowcount == 1

    def progress(self, annotator: str) -> LabelProgress:
        """Rows done and left."""
        with self._lock:
            count = "SELECT count(*) FROM work WHERE annotator = ? AND verdict IS"
            done = self._db.execute(f"{count} NOT NULL", (annotator,)).fetchone()[0]
            begun = self._db.execute(f"{count} NULL", (annotator,)).fetchone()[0]
            return LabelProgress(done, begun + len(self._free(annotator)))

    def judgements(self) -> list[Judgement]:
        """Everything handed in, skipped rows too, in the order of rows, then of people's names."""
        with self._lock:
            rows = self._db.execute(
                "SELECT body, annotator, verdict, draft, shown FROM work JOIN items ON item = number"
                " WHERE verdict IS NOT NULL ORDER BY number, annotator"
            ).fetchall()
        return [
            judgement_of(LabelItem.from_json(body), name, verdict, Draft.from_json(draft), tuple(json.loads(shown)))
            for body, name, verdict, draft, shown in rows
        ]

    def num_items(self) -> int:
        """Rows in the store."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM items").fetchone()[0])

    def num_people(self) -> int:
        """People who were shown a row."""
        with self._lock:
            return int(self._db.execute("SELECT count(DISTINCT annotator) FROM work").fetchone()[0])

    def knows(self, annotator: str) -> bool:
        """Whether this person was shown a row before."""
        with self._lock:
            found = self._db.execute("SELECT 1 FROM work WHERE annotator = ? LIMIT 1", (annotator,)).fetchone()
            return found is not None

    def _draw(self, *names: str) -> bytes:
        """A number for these names under the seed; sorting by it is a random order that new rows do not upset."""
        return hashlib.sha256("\0".join((str(self.seed), *names)).encode()).digest()

    def _free(self, annotator: str) -> list[tuple[int, str]]:
        """(number, key) of the rows this person could be given now."""
        return self._db.execute(_FREE, {"annotator": annotator, "since": time.time() - CLAIM_S}).fetchall()

    def _begin(self, annotator: str, number: int) -> None:
        body, key = self._db.execute("SELECT body, key FROM items WHERE number = ?", (number,)).fetchone()
        answers = range(len(LabelItem.from_json(body).responses))
        shown = sorted(answers, key=lambda answer: self._draw(annotator, key, str(answer)))
        turn = self._db.execute("SELECT count(*) FROM work WHERE annotator = ?", (annotator,)).fetchone()[0]
        values = (annotator, number, turn, json.dumps(shown), Draft().to_json(), None, time.time())
        self._db.execute("INSERT INTO work VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def _num_answers(self, annotator: str, number: int) -> int:
        found = self._db.execute(
            "SELECT shown FROM work WHERE annotator = ? AND item = ?", (annotator, number)
        ).fetchone()
        if found is None:
            raise DataError(f"row {number} was not shown to {annotator}", fix="reload the page")
        return len(json.loads(found[0]))

    def _write(self, annotator: str, number: int, draft: Draft, verdict: Verdict | None) -> None:
        self._db.execute(
            "UPDATE work SET draft = ?, verdict = ?, updated_s = ? WHERE annotator = ? AND item = ?",
            (draft.to_json(), verdict, time.time(), annotator, number),
        )
