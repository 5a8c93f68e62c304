"""Answers kept on disk, so that what was paid for once is not asked again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rlhf.artifacts.database import Database
from rlhf.curate.endpoint.messages import ChatAnswer, EndpointRequest

SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"


class AnswerCache:
    """A SQLite file of answers by request; threads and processes may share it.

    Every answer is committed as it is put, so a process that is killed loses none.

    Raises: ArtifactError, here and in every method, when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, option="--cache")

    def get(self, key: str) -> ChatAnswer | None:
        """The answer kept for a request, if any."""
        found = self._database.value("SELECT answer FROM answers WHERE key = ?", key)
        return None if found is None else ChatAnswer.from_json(found)

    def put(self, key: str, answer: ChatAnswer) -> None:
        """Keeps an answer."""
        self._database.run("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, answer.to_json())

    def close(self) -> None:
        """Closes the file."""
        self._database.close()


def cache_key(url: str, model: str, request: EndpointRequest) -> str:
    """SHA-256 of everything that decides an answer, the sample's number included."""
    value = {"url": url.rstrip("/"), "body": request.body(model), "sample": request.sample}
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
