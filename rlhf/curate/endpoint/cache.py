"""Answers kept on disk, so that what was paid for once is not asked again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path

from rlhf.curate.endpoint.messages import ChatAnswer, EndpointRequest
from rlhf.errors import EndpointError

WAIT_S = 30.0  # for another process that writes


class AnswerCache:
    """A SQLite file of answers by request; threads and processes may share it.

    Every answer is committed as it is put, so a process that is killed loses none.

    Raises: EndpointError when the file cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=WAIT_S, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise EndpointError(
                f"cannot keep answers here: {error}", where=str(path), fix="choose another --cache file"
            ) from None

    def get(self, key: str) -> ChatAnswer | None:
        """The answer kept for a request, if any. EndpointError when the file cannot be read."""
        found = self._execute("SELECT answer FROM answers WHERE key = ?", (key,))
        return ChatAnswer.from_json(found[0]) if found else None

    def put(self, key: str, answer: ChatAnswer) -> None:
        """Keeps an answer, at once. EndpointError when it cannot be written."""
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer.to_json()))

    def _execute(self, statement: str, values: tuple[str, ...]) -> tuple[str, ...] | None:
        try:
            with self._lock:
                found: tuple[str, ...] | None = self._connection.execute(statement, values).fetchone()
                return found
        except sqlite3.Error as error:
            raise EndpointError(
                f"the cache failed: {error}", where=str(self.path), fix="make room on the disk"
            ) from None

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def cache_key(url: str, model: str, request: EndpointRequest) -> str:
    """SHA-256 of everything that decides an answer, the sample's number included."""
    value = {"url": url.rstrip("/"), "body": request.body(model), "sample": request.sample}
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
