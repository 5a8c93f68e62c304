"""Files, jobs and their events in one SQLite file."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

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


Entry = TypeVar("Entry", StoredFile, Job, JobEvent)


def new_id(prefix: str) -> str:
    """`prefix-` and 24 random characters, nothing of what a client sent."""
    return f"{prefix}-{secrets.token_hex(12)}"


class JobStore:
    """The store of one service. Lists are newest first."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, option="--jobs-dir")
        self.close, self.change = self._database.close, self._database.change

    def add(self, entry: StoredFile | Job) -> None:
        names = entry.__slots__
        values = [_stored(getattr(entry, name)) for name in names]
        table = _TABLES[type(entry)]
        self._database.run(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({_marks(values)})", *values)

    def find(self, kind: type[Entry], **wanted: str | int | None) -> list[Entry]:
        """Entries whose columns hold the wanted values; None wants nothing of a column."""
        given = {name: value for name, value in wanted.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "TRUE"
        query = f"SELECT * FROM {_TABLES[kind]} WHERE {where} ORDER BY rowid DESC"
        return [kind(**_read(row)) for row in self._database.rows(query, *given.values())]

    def first(self, kind: type[Entry], **wanted: str | int | None) -> Entry | None:
        """The newest of what `find` finds, or None."""
        return next(iter(self.find(kind, **wanted)), None)

    def set_checked(self, identifier: str, status: FileStatus, report: Mapping[str, Any]) -> None:
        """Keeps what the check of a file found."""
        self._database.run("UPDATE files SET status = ?, report = ? WHERE id = ?", status, _json(report), identifier)

    def remove_file(self, identifier: str) -> None:
        self._database.run("DELETE FROM files WHERE id = ?", identifier)

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


_TABLES = {StoredFile: "files", Job: "jobs", JobEvent: "events"}
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
