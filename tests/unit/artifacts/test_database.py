"""Every change is whole and on disk, and each thing that can go wrong with the file says what to do."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.artifacts.database import Database
from rlhf.errors import ArtifactError

SCHEMA = "CREATE TABLE IF NOT EXISTS points (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"


def database_at(path: Path, **rest: int) -> Database:
    return Database(path, SCHEMA, option="--points", **rest)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = database_at(tmp_path / "deep" / "points.sqlite")
    yield made
    made.close()


def add(database: Database, name: str, value: int = 1) -> None:
    database.run("INSERT INTO points VALUES (?, ?)", name, value)


def test_values_rows_and_counts(database: Database) -> None:
    database.run_many("INSERT INTO points VALUES (?, ?)", [("가", 1), ("나", 2), ("다", 2)])
    assert [tuple(row) for row in database.rows("SELECT * FROM points ORDER BY name")] == [
        ("가", 1),
        ("나", 2),
        ("다", 2),
    ]
    assert database.row("SELECT * FROM points WHERE name = ?", "나")["value"] == 2
    assert database.row("SELECT * FROM points WHERE name = ?", "라") is None
    assert database.value("SELECT count(*) FROM points") == 3
    assert database.value("SELECT value FROM points WHERE name = ?", "라") is None
    assert database.run("UPDATE points SET value = 5 WHERE value = ?", 2) == 2


def test_only_the_owner_may_read_the_file(database: Database) -> None:
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_a_change_is_on_disk_when_it_returns(database: Database) -> None:
    add(database, "가")
    with sqlite3.connect(database.path) as other:
        assert other.execute("SELECT name FROM points").fetchall() == [("가",)]
    assert database.value("PRAGMA journal_mode") == "wal"
    assert database.value("PRAGMA synchronous") == 2  # FULL


def test_a_transaction_is_whole_or_absent(database: Database) -> None:
    def add_two() -> None:
        with database.change():
            add(database, "가")
            raise KeyError("가")

    with pytest.raises(KeyError):
        add_two()
    assert database.value("SELECT count(*) FROM points") == 0
    with database.change():  # and the next one is not disturbed
        add(database, "나")
    assert database.value("SELECT name FROM points") == "나"


def test_a_broken_constraint_is_the_programs_to_handle(database: Database) -> None:
    add(database, "가")
    with pytest.raises(sqlite3.IntegrityError):
        add(database, "가")


def test_threads_wait_for_each_other(database: Database) -> None:
    add(database, "합", 0)

    def count() -> None:
        for _ in range(50):
            with database.change():
                value = database.value("SELECT value FROM points")
                database.run("UPDATE points SET value = ?", value + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.value("SELECT value FROM points") == 200


def error_of(action) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        action()
    return caught.value


def test_a_locked_file(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.artifacts.database.WAIT_S", 0.05)
    other = database_at(database.path)
    with database.change():
        error = error_of(lambda: add(other, "가"))
    assert (error.problem, error.where) == ("is locked by another process", str(database.path))
    assert error.fix == "end that process, or try again later"
    add(other, "가")
    other.close()


def test_a_file_that_cannot_be_written(database: Database, tmp_path: Path) -> None:
    database.run("PRAGMA query_only = 1")
    error = error_of(lambda: add(database, "가"))
    assert error.problem == "cannot be written"
    assert error.fix == "make the file and its folder writable, or choose another --points"
    error = error_of(lambda: database_at(tmp_path))  # a folder
    assert (error.problem, error.fix) == ("cannot be used: Is a directory", "choose another --points")


def test_a_full_disk_saves_nothing_and_is_passed_when_there_is_room(database: Database) -> None:
    pages = database.value("PRAGMA page_count")
    database.run(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with database.change():
            add(database, "가")
            add(database, "나" * 100_000)

    error = error_of(fill)
    assert (error.problem, error.fix) == (
        "the disk is full, and the change was not saved",
        "make room on the disk, and try again",
    )
    assert database.value("SELECT count(*) FROM points") == 0
    database.run(f"PRAGMA max_page_count = {pages + 1000}")
    fill()
    assert database.value("SELECT count(*) FROM points") == 2


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    path.write_text("아무 글" * 2000, encoding="utf-8")
    error = error_of(lambda: database_at(path))
    assert (error.problem, error.where) == ("is not a SQLite database, or is damaged", str(path))
    assert error.fix == "restore it from a copy, or choose another --points"
    assert path.read_text(encoding="utf-8") == "아무 글" * 2000


def test_a_file_of_another_version_is_left_alone(database: Database) -> None:
    add(database, "가")
    again = database_at(database.path)  # the same version
    assert again.value("SELECT name FROM points") == "가"
    again.close()
    error = error_of(lambda: database_at(database.path, version=2))
    assert (error.problem, error.expected) == ("has schema version 1", "version 2")
    assert "choose another --points" in error.fix
    assert database.value("PRAGMA user_version") == 1


def test_a_file_without_a_version_gets_one(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "points.sqlite") as other:
        other.executescript(f"{SCHEMA}; INSERT INTO points VALUES ('가', 1)")
    database = database_at(tmp_path / "points.sqlite")
    assert database.value("SELECT name FROM points") == "가"
    assert database.value("PRAGMA user_version") == 1
    database.close()
