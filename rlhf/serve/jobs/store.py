"""Files, jobs and their events in one SQLite file."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
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
    """A file that was uploaded, or written by a job; `report` is a `Report.as_dict`, {} until the file is checked."""

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
    """A training run that was requested. `request` holds what clients read back: hyperparameters and so on."""

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
    """An event of a job; `step` is set where `data` holds the metrics of one."""

    number: int
    job: str
    created_at: int
    level: Level
    message: str
    step: int | None
    data: dict[str, Any]


def new_id(prefix: str) -> str:
    """`prefix-` and 24 random characters, nothing of what a client sent."""
    return f"{prefix}-{secrets.token_hex(12)}"


class JobStore:
    """The store of one service. Lists are newest first; `owner` None finds everybody's."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, option="--jobs-dir")

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def change(self) -> AbstractContextManager[None]:
        """A transaction: everything in the block is committed, or nothing of it."""
        return self._database.change()

    # Files

    def add_file(self, file: StoredFile) -> None:
        """Adds a new file's entry."""
        self._insert("files", file)

    def set_checked(self, identifier: str, status: FileStatus, report: Mapping[str, Any]) -> None:
        """Keeps what the check of a file found."""
        self._database.run("UPDATE files SET status = ?, report = ? WHERE id = ?", status, _json(report), identifier)

    def file(self, identifier: str, owner: str | None = None) -> StoredFile | None:
        """One file, if it is the owner's."""
        return next(iter(self._files(id=identifier, owner=owner)), None)

    def files(self, owner: str | None = None, *, status: FileStatus | None = None) -> list[StoredFile]:
        """All files."""
        return self._files(owner=owner, status=status)

    def remove_file(self, identifier: str) -> None:
        """Removes a file's entry."""
        self._database.run("DELETE FROM files WHERE id = ?", identifier)

    # Jobs

    def add_job(self, job: Job, messages: Sequence[str]) -> None:
        """Adds a new job and its first events."""
        with self.change():
            self._insert("jobs", job)
            for message in messages:
                self.add_event(job.id, message)

    def job(self, identifier: str, owner: str | None = None) -> Job | None:
        """One job, if it is the owner's."""
        return next(iter(self._jobs(id=identifier, owner=owner)), None)

    def jobs(self, owner: str | None = None, *, status: JobStatus | None = None) -> list[Job]:
        """All jobs."""
        return self._jobs(owner=owner, status=status)

    def job_of_model(self, model: str, owner: str | None = None) -> Job | None:
        """The job that made a model."""
        return next(iter(self._jobs(fine_tuned_model=model, owner=owner)), None)

    def uses_file(self, identifier: str) -> bool:
        """Whether a job that has not ended reads this file."""
        query = "SELECT 1 FROM jobs WHERE ? IN (training_file, validation_file) AND status IN ('queued', 'running')"
        return self._database.row(query, identifier) is not None

    def move(self, identifier: str, to: JobStatus, *, only_from: tuple[JobStatus, ...], **values: Any) -> bool:
        """Changes a job's status and other columns; False, and no change, when it is in none of `only_from`."""
        now = int(time.time())
        values |= {"status": to, "updated_at": now} | ({"finished_at": now} if to in ENDED else {})
        columns = ", ".join(f"{name} = ?" for name in values)
        statement = f"UPDATE jobs SET {columns} WHERE id = ? AND status IN ({_marks(only_from)})"
        return self._database.run(statement, *map(_stored, values.values()), identifier, *only_from) == 1

    # Events

    def add_event(
        self,
        job: str,
        message: str,
        *,
        level: Level = "info",
        step: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds an event, unless there is one of this step already."""
        columns = "job, created_at, level, message, step, data"
        values = (job, int(time.time()), level, message, step, _json(data or {}))
        self._database.run(f"INSERT OR IGNORE INTO events ({columns}) VALUES ({_marks(values)})", *values)

    def events(self, job: str) -> list[JobEvent]:
        """A job's events, newest first."""
        rows = self._database.rows("SELECT * FROM events WHERE job = ? ORDER BY number DESC", job)
        return [JobEvent(**_read(row)) for row in rows]

    def _files(self, **wanted: str | None) -> list[StoredFile]:
        return [StoredFile(**entry) for entry in self._select("files", wanted)]

    def _jobs(self, **wanted: str | None) -> list[Job]:
        return [Job(**entry) for entry in self._select("jobs", wanted)]

    def _select(self, table: str, wanted: Mapping[str, str | None]) -> list[dict[str, Any]]:
        """Entries whose columns hold the wanted values, newest first; None wants nothing of a column."""
        given = {name: value for name, value in wanted.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "TRUE"
        return [
            _read(row)
            for row in self._database.rows(f"SELECT * FROM {table} WHERE {where} ORDER BY rowid DESC", *given.values())
        ]

    def _insert(self, table: str, entry: StoredFile | Job) -> None:
        names = entry.__slots__
        values = [_stored(getattr(entry, name)) for name in names]
        self._database.run(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({_marks(values)})", *values)


_JSON_COLUMNS = ("report", "request", "error", "data")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _stored(value: Any) -> Any:
    return _json(value) if isinstance(value, dict) else value


def _read(row: sqlite3.Row) -> dict[str, Any]:
    """Columns as they were before `_stored`."""
    return {name: json.loads(value) if name in _JSON_COLUMNS and value else value for name, value in dict(row).items()}


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))
