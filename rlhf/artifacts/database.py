"""SQLite files of this project: every change is on disk before the caller goes on, whatever kills the process next."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf.errors import ArtifactError

WAIT_S = 30.0  # for another process that writes
# What SQLite's result codes mean for the operator, and what to do.
_NOT_A_DATABASE = "is not a SQLite database, or is damaged", "restore it from a copy, or choose another {option}"
_READ_ONLY = "cannot be written", "make the file and its folder writable, or choose another {option}"
_PROBLEMS = {
    sqlite3.SQLITE_BUSY: ("is locked by another process", "end that process, or try again later"),
    sqlite3.SQLITE_LOCKED: ("is locked by another process", "end that process, or try again later"),
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: ("the disk is full, and the change was not saved", "make room on the disk, and try again"),
    sqlite3.SQLITE_NOTADB: _NOT_A_DATABASE,
    sqlite3.SQLITE_CORRUPT: _NOT_A_DATABASE,
}


class Database:
    """One SQLite file, safe to use from several threads and several processes.

    Args:
        path: opened, or created, readable by its owner alone.
        schema: statements that create what does not exist yet.
        option: the command-line flag that names the file, for the errors.
        version: of the schema, kept in the file; raise it when the schema changes.

    Raises: ArtifactError, here and in every method, when the file is locked, cannot be written, is damaged or is not a
        database of this version, or the disk is full. A statement that breaks a constraint raises
        sqlite3.IntegrityError.
    """

    def __init__(self, path: Path, schema: str, *, option: str, version: int = 1) -> None:
        self.path, self._option = path, option
        self._lock = threading.RLock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(path, timeout=WAIT_S, check_same_thread=False, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            found = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if found in (0, version):
                self._connection.executescript(schema)
            if found == 0:
                self._connection.execute(f"PRAGMA user_version = {version}")
        if found not in (0, version):
            self.close()
            raise ArtifactError(
                f"has schema version {found}",
                where=str(path),
                expected=f"version {version}",
                fix=f"use the version of rlhf that wrote it, or choose another {option}",
            )

    def close(self) -> None:
        """Closes the file; no other method may be called afterwards."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: everything in the block is committed, or nothing of it."""
        with self._lock:
            self.run("BEGIN IMMEDIATE")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself rolls back after some errors
                    self._connection.execute("ROLLBACK")
                raise

    def run(self, statement: str, *values: Any) -> int:
        """Executes one statement and returns the number of rows it changed."""
        with self._lock, self._errors():
            return self._connection.execute(statement, values).rowcount

    def run_many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Executes one statement with each tuple of values."""
        with self._lock, self._errors():
            self._connection.executemany(statement, values)

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, self._errors():
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        return next(iter(self.rows(query, *values)), None)

    def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row of a query, or None."""
        row = self.row(query, *values)
        return None if row is None else row[0]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raises what SQLite or the file system reports as an ArtifactError with its fix."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except (OSError, sqlite3.Error) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits only refine the lower eight
            default = f"cannot be used: {getattr(error, 'strerror', None) or error}", "choose another {option}"
            problem, fix = _PROBLEMS.get(code, default)
            raise ArtifactError(problem, where=str(self.path), fix=fix.format(option=self._option)) from error
