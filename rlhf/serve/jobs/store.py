"""Files, jobs and their events in one SQLite file."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf.artifacts.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL, status TEXT NOT NULL, report TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  finished_at INTEGER, status TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL, training_file TEXT NOT NULL,
  validation_file TEXT, request TEXT NOT NULL, fine_tuned_model TEXT, result_file TEXT, error TEXT,
  trained_tokens INTEGER, attempts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, created_at INTEGER NOT NULL, level TEXT NOT NULL,
  message TEXT NOT NULL, step INTEGER, data TEXT NOT NULL, UNIQUE (job, step));
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status);
CREATE INDEX IF NOT EXISTS jobs_by_model ON jobs (fine_tuned_model);
"""
FileStatus = Literal["uploaded", "processed", "error"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warn", "error"]
ENDED: tuple[JobStatus, ...] = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was uploaded, or made by a job; `report` is what `Report.as_dict` gave, {} until it is checked."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    status: FileStatus = "uploaded"
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """A training run that was asked for. `request` holds what the job objects show again: hyperparameters and so on."""

    id: str
    owner: str
    created_at: int
    updated_at: int
    status: JobStatus
    stage: str
    model: str
    training_file: str
    validation_file: str | None
    request: dict[str, Any]
    finished_at: int | None = None
    fine_tuned_model: str | None = None
    result_file: str | None = None
    error: dict[str, Any] | None = None
    trained_tokens: int | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something a job tells; `step` is set where it tells the metrics in `data`."""

    number: int
    job: str
    created_at: int
    level: Level
    message: str
    step: int | None
    data: dict[str, Any]


def new_id(prefix: str) -> str:
    """`prefix-` and 24 random characters: nothing a client sent is in it."""
    return f"{prefix}-{secrets.token_hex(12)}"


class JobStore:
    """The store of one service. Lists are newest first; `owner` None finds everybody's."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, option="--jobs-dir")

    def close(self) -> None:
        """Ends all use of the file."""
        self._database.close()

    def change(self) -> AbstractContextManager[None]:
        """Everything in the block, or nothing of it."""
        return self._database.change()

    # Files

    def add_file(self, file: StoredFile) -> None:
        """Keeps a new file's entry."""
        values = _values(file)
        self._database.run(f"INSERT INTO files ({', '.join(values)}) VALUES ({_marks(values)})", *values.values())

    def set_checked(self, identifier: str, status: FileStatus, report: Mapping[str, Any]) -> None:
        """What the check of a file found."""
        self._database.run("UPDATE files SET status = ?, report = ? WHERE id = ?", status, _json(report), identifier)

    def file(self, identifier: str, owner: str | None = None) -> StoredFile | None:
        """One file, if it is the owner's."""
        found = self._database.row("SELECT * FROM files WHERE id = ? AND ? IN (owner, '')", identifier, owner or "")
        return None if found is None else _file(found)

    def files(self, owner: str | None = None, *, status: FileStatus | None = None) -> list[StoredFile]:
        """All files."""
        rows = self._database.rows(
            "SELECT * FROM files WHERE ? IN (owner, '') AND ? IN (status, '') ORDER BY rowid DESC",
            owner or "",
            status or "",
        )
        return [_file(row) for row in rows]

    def remove_file(self, identifier: str) -> None:
        """Forgets a file's entry."""
        self._database.run("DELETE FROM files WHERE id = ?", identifier)

    # Jobs

    def add_job(self, job: Job, messages: Sequence[str]) -> None:
        """Keeps a new job and its first events."""
        values = _values(job)
        with self.change():
            self._database.run(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({_marks(values)})", *values.values())
            for message in messages:
                self.tell(job.id, message)

    def job(self, identifier: str, owner: str | None = None) -> Job | None:
        """One job, if it is the owner's."""
        found = self._database.row("SELECT * FROM jobs WHERE id = ? AND ? IN (owner, '')", identifier, owner or "")
        return None if found is None else _job(found)

    def jobs(self, owner: str | None = None, *, status: JobStatus | None = None) -> list[Job]:
        """All jobs."""
        rows = self._database.rows(
            "SELECT * FROM jobs WHERE ? IN (owner, '') AND ? IN (status, '') ORDER BY rowid DESC",
            owner or "",
            status or "",
        )
        return [_job(row) for row in rows]

    def job_of_model(self, model: str, owner: str | None = None) -> Job | None:
        """The job that made a model."""
        found = self._database.row(
            "SELECT * FROM jobs WHERE fine_tuned_model = ? AND ? IN (owner, '')", model, owner or ""
        )
        return None if found is None else _job(found)

    def uses_file(self, identifier: str) -> bool:
        """Whether a job that has not ended reads this file."""
        query = "SELECT 1 FROM jobs WHERE ? IN (training_file, validation_file) AND status IN ('queued', 'running')"
        return self._database.row(query, identifier) is not None

    def move(self, identifier: str, to: JobStatus, *, only_from: Iterable[JobStatus], **values: Any) -> bool:
        """Changes a job's status and other columns; False, and no change, when it is in none of `only_from`."""
        now, allowed = int(time.time()), tuple(only_from)
        values |= {"status": to, "updated_at": now} | ({"finished_at": now} if to in ENDED else {})
        columns = ", ".join(f"{name} = ?" for name in values)
        statement = f"UPDATE jobs SET {columns} WHERE id = ? AND status IN ({_marks(allowed)})"
        stored = [_json(value) if isinstance(value, dict) else value for value in values.values()]
        return self._database.run(statement, *stored, identifier, *allowed) == 1

    # Events

    def tell(
        self,
        job: str,
        message: str,
        *,
        level: Level = "info",
        step: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds an event; a step that was told already is not told again."""
        self._database.run(
            "INSERT OR IGNORE INTO events (job, created_at, level, message, step, data) VALUES (?, ?, ?, ?, ?, ?)",
            job,
            int(time.time()),
            level,
            message,
            step,
            _json(data or {}),
        )

    def events(self, job: str) -> list[JobEvent]:
        """What a job has told, newest first."""
        rows = self._database.rows("SELECT * FROM events WHERE job = ? ORDER BY number DESC", job)
        return [JobEvent(**{**dict(row), "data": json.loads(row["data"])}) for row in rows]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)


def _values(entry: StoredFile | Job) -> dict[str, Any]:
    """Columns and what they hold."""
    values = {name: getattr(entry, name) for name in entry.__slots__}
    return {name: _json(value) if isinstance(value, dict) else value for name, value in values.items()}


def _file(row: sqlite3.Row) -> StoredFile:
    return StoredFile(**{**dict(row), "report": json.loads(row["report"])})


def _job(row: sqlite3.Row) -> Job:
    error = json.loads(row["error"]) if row["error"] else None
    return Job(**{**dict(row), "request": json.loads(row["request"]), "error": error})
