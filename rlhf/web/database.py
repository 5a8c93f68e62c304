"""One SQLite file: every change is on disk before it is answered, whatever kills the process next."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf.errors import ArtifactError


class Database:
    """Safe to use from several threads, and from several processes.

    Args:
        path: file to open or make; readable by its owner alone.
        schema: statements that make what is not there yet.

    Raises: ArtifactError when it cannot be written, or is something else.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(schema)
        except (OSError, sqlite3.Error) as error:
            problem = f"cannot be used as a store: {getattr(error, 'strerror', None) or error}"
            raise ArtifactError(problem, where=str(path), fix="choose another file") from None

    def close(self) -> None:
        """Ends all use of the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Everything in the block, or nothing of it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def run(self, statement: str, *values: Any) -> int:
        """Executes one statement; how many rows it changed."""
        with self._lock:
            return self._connection.execute(statement, values).rowcount

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """What a query finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """The first of `rows`, or None."""
        found = self.rows(query, *values)
        return found[0] if found else None
