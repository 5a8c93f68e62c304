"""Checkpoints on a disk that fails: real processes that die inside a save, damaged files, a disk that is full."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rlhf.artifacts.checkpoint import CheckpointStore
from rlhf.artifacts.files import write_text
from rlhf.artifacts.run_folder import FailureRecord, RankFailure
from rlhf.engine.ranks import Ranks
from rlhf.errors import CheckpointError

ALONE = Ranks(0, 0, 1, torch.device("cpu"))
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate")
DIED = 77


def store_at(folder: Path, keep_last: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, ALONE, keep_last=keep_last)


def save(store: CheckpointStore, step: int, *, best: bool = False) -> None:
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        torch.save({"weights": torch.full((64,), float(step))}, folder / "model" / "weights.pt")

    store.save(step, {"consumed": step * 10, "zero_stage": 0}, write, best=best)


def weights_of(path: Path) -> float:
    return float(torch.load(path / "model" / "weights.pt")["weights"][-1])


def require_loadable(folder: Path) -> int:
    """The checkpoint the next process would take is whole, and its own; its step."""
    said: list[str] = []
    checkpoint = store_at(folder).undamaged(said.append)
    assert checkpoint is not None
    assert said == []
    assert checkpoint.state["consumed"] == checkpoint.step * 10
    assert weights_of(checkpoint.path) == checkpoint.step
    return checkpoint.step


def status_of_child(work: Callable[[], None]) -> int:
    """Does `work` in a forked process; its exit status, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(call: int) -> None:
    """Ends this process, with no chance to clean up, just before its n-th change of the file system."""
    seen = 0

    def look(event: str, arguments: tuple) -> None:
        nonlocal seen
        opens = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
        if opens or event in CHANGES:
            if seen == call:
                os._exit(DIED)
            seen += 1

    sys.addaudithook(look)
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        look("os.remove", ())
        flush(descriptor)

    os.fsync = fsync


def test_a_process_that_dies_at_any_change_of_the_disk_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    taken = []
    for call in range(200):
        folder = tmp_path / str(call)
        save(store_at(folder, 1), 1)

        def work(call: int = call, folder: Path = folder) -> None:
            die_at(call)
            save(store_at(folder, 1), 2)

        status = status_of_child(work)
        assert status in (0, DIED)
        taken.append(require_loadable(folder))
        if status == 0:
            break
        if call % 5 == 0:
            save(store_at(folder, 1), taken[-1] + 1)  # and the run goes on
            assert require_loadable(folder) == taken[-1] + 1
            assert not list(folder.glob(".*"))
    assert len(taken) > 25
    assert taken == sorted(taken)  # the old one until the pointer moves, the new one from then on
    assert set(taken) == {1, 2}


def test_a_process_killed_inside_a_write_leaves_the_checkpoint_before(tmp_path):
    """The kernel kills it at the byte: SIGXFSZ, sent where a file would grow beyond the limit."""
    save(store_at(tmp_path), 1)
    largest = max(path.stat().st_size for path in (tmp_path / "step-000001").rglob("*"))

    for limit in (0, 20, 300, largest - 1):

        def work(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(store_at(tmp_path), 2)

        assert status_of_child(work) == -signal.SIGXFSZ
        assert require_loadable(tmp_path) == 1
    save(store_at(tmp_path), 2)
    assert require_loadable(tmp_path) == 2


def test_files_of_another_number_of_ranks_never_mix_in(tmp_path):
    save(store_at(tmp_path), 1)
    half = tmp_path / ".writing-step-000002"  # what four ranks left of their second checkpoint, and of their third
    (half / "model").mkdir(parents=True)
    (half / "model" / "shard-3.pt").touch()
    (half / "random-0003.pt").touch()
    (tmp_path / ".writing-step-000003").mkdir()
    save(store_at(tmp_path), 2)
    names = sorted(path.name for path in (tmp_path / "step-000002").rglob("*") if path.is_file())
    assert names == ["checksums.json", "random-0000.pt", "trainer.json", "weights.pt"]
    assert not list(tmp_path.glob(".*"))


# Damage


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    ("harm", "name", "told"),
    [
        (flip_bit, "model/weights.pt", "model/weights.pt holds other bytes than were saved: its SHA-256 is "),
        (cut, "model/weights.pt", "model/weights.pt has "),
        (Path.unlink, "model/weights.pt", "model/weights.pt is missing"),
        (flip_bit, "random-0000.pt", "random-0000.pt holds other bytes"),
        (cut, "trainer.json", "trainer.json cannot be read"),
        (Path.unlink, "trainer.json", "trainer.json is missing"),
        (cut, "checksums.json", "checksums.json cannot be read"),
        (lambda file: file.with_name("stale.pt").touch(), "model/weights.pt", "model/stale.pt was not saved with it"),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, harm, name, told):
    store = store_at(tmp_path)
    save(store, 1)
    save(store, 2)
    harm(tmp_path / "step-000002" / name)
    with pytest.raises(CheckpointError, match="--resume: .*step-000002 is damaged: " + told):
        store.named("step-000002")
    said: list[str] = []
    found = store.undamaged(said.append)
    assert found.step == 1
    assert len(said) == 1
    assert f"step-000002 is damaged: {told}" in said[0]
    store.go_back_to(found)
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["aside-step-000002", "step-000001"]
    assert require_loadable(tmp_path) == 1
    save(store, 2)  # the step is made again, beside what was kept
    assert require_loadable(tmp_path) == 2
    assert (tmp_path / "aside-step-000002").is_dir()


def test_a_folder_that_is_gone_counts_as_damaged(tmp_path):
    store = store_at(tmp_path)
    save(store, 1)
    save(store, 2)
    (tmp_path / "step-000002").rename(tmp_path / "elsewhere")
    said: list[str] = []
    assert store.undamaged(said.append).step == 1
    assert "step-000002 is damaged: the folder is missing" in said[0]


def test_when_all_are_damaged_nothing_is_touched(tmp_path):
    store = store_at(tmp_path)
    for step in (1, 2):
        save(store, step)
        flip_bit(tmp_path / f"step-{step:06d}" / "model" / "weights.pt")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(step-000002, step-000001\)"):
        store.undamaged(lambda text: None)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_best_is_named_before_it_is_exported(tmp_path):
    store = store_at(tmp_path)
    save(store, 1, best=True)
    save(store, 2)
    store.require_undamaged(store.best())
    flip_bit(tmp_path / "step-000001" / "model" / "weights.pt")
    with pytest.raises(CheckpointError, match=r"step-000001 is damaged: model/weights.pt"):
        store.require_undamaged(store.best())


def test_a_named_checkpoint_is_gone_back_to_and_later_ones_are_kept_aside(tmp_path):
    store = store_at(tmp_path, keep_last=9)
    for step in (1, 2, 3):
        save(store, step)
    with pytest.raises(CheckpointError, match="holds no checkpoint step-000007"):
        store.named("step-000007")
    store.go_back_to(store.named("step-000001"))
    assert require_loadable(tmp_path) == 1
    kept = sorted(path.name for path in tmp_path.glob("aside-*"))
    assert kept == ["aside-step-000002", "aside-step-000003"]
    save(store, 2)
    store.go_back_to(store.named("step-000001"))
    assert (tmp_path / "aside-step-000002-2").is_dir()


def test_a_checkpoint_without_checksums_is_used(tmp_path):
    """Those of a version that wrote none."""
    save(store_at(tmp_path), 1)
    (tmp_path / "step-000001" / "checksums.json").unlink()
    assert require_loadable(tmp_path) == 1


def test_the_checksums_are_those_of_another_program(tmp_path):
    save(store_at(tmp_path), 1)
    folder = tmp_path / "step-000001"
    names = ["model/weights.pt", "random-0000.pt", "trainer.json"]
    printed = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True).stdout
    expected = {name: digest for digest, name in (line.split("  ") for line in printed.splitlines())}
    from rlhf.artifacts.files import read_json

    found = read_json(folder / "checksums.json")
    assert {name: entry["sha256"] for name, entry in found.items()} == expected
    assert {name: entry["bytes"] for name, entry in found.items()} == {n: (folder / n).stat().st_size for n in names}


# The disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skipped where one cannot be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def save_large(store: CheckpointStore, step: int) -> None:
    store.save(step, {"consumed": step * 10}, lambda folder: torch.save(torch.zeros(60_000), folder / "w.pt"))


def test_a_full_disk_keeps_the_checkpoint_before_and_gives_its_room_back(tmp_path):
    with small_disk(tmp_path / "disk", "400k") as disk:
        store = store_at(disk)
        save_large(store, 1)  # 240 kB of weights, and 15 kB
        with pytest.raises(CheckpointError) as caught:
            save_large(store, 2)
        assert "step-000002 cannot be written: " in str(caught.value)
        assert "step-000001 is kept and complete" in str(caught.value)
        assert "start with --resume auto" in str(caught.value)
        assert [path.name for path in disk.glob("*step*")] == ["step-000001"]
        assert store.undamaged(pytest.fail).step == 1
        write_text(disk / "state.json", "there is room to say so")


def test_a_file_that_may_not_grow_is_the_same(tmp_path):
    """As for a quota, and where no disk can be mounted: the system refuses the write with EFBIG."""
    save_large(store_at(tmp_path), 1)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_large(store_at(tmp_path), 2)
        except CheckpointError as error:
            os._exit(DIED if "step-000001 is kept and complete" in str(error) else 1)

    assert status_of_child(work) == DIED
    assert store_at(tmp_path).undamaged(pytest.fail).step == 1


def test_a_disk_that_became_read_only_is_said(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        store = store_at(disk)
        save(store, 1)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(CheckpointError, match="step-000002 cannot be written: Read-only file system"):
            save(store, 2)
        assert require_loadable(disk) == 1


def test_an_error_of_another_kind_is_not_taken_for_a_full_disk(tmp_path):
    def write(folder: Path) -> None:
        raise RuntimeError("matrices of other sizes")

    with pytest.raises(RuntimeError, match="matrices"):
        store_at(tmp_path).save(1, {}, write)


def test_a_refused_text_leaves_the_old_one_and_nothing_beside(tmp_path, monkeypatch):
    write_text(tmp_path / "state.json", "alt")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "state.json", "neu")
    assert (tmp_path / "state.json").read_text() == "alt"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


# The first failure


def test_the_first_failure_stays(tmp_path):
    record = FailureRecord(tmp_path)
    assert record.read() is None
    cause = RankFailure(1, 4, "손실이 발산했다")
    assert record.write(cause) == cause
    assert record.write(RankFailure(0, 4, "connection closed")) == cause
    assert record.read() == cause
    assert [path.name for path in tmp_path.iterdir()] == [".failure.json"]
    record.clear()
    assert record.read() is None
