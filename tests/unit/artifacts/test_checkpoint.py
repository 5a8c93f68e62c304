"""Checkpoints are complete or absent, wherever a save is cut off."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf.artifacts.checkpoint import Checkpoint, CheckpointStore, random_state, set_random_state
from rlhf.engine.ranks import Ranks
from rlhf.errors import CheckpointError

ALONE = Ranks(0, 0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of saves: flushing is counted and ordered here, not done."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Crashed(BaseException):
    """Stands for a killed process: nothing in the code under test may catch it."""


def store_at(folder: Path, keep_last: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, ALONE, keep_last=keep_last)


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "actor").mkdir()
        (folder / "actor" / "weights.txt").write_text(text)

    return write


def save(store: CheckpointStore, step: int, *, text: str = "", best: bool = False) -> None:
    store.save(step, {"consumed": step * 10, "zero_stage": 0}, writer(text or f"weights {step}"), best=best)


def steps_on_disk(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def assert_complete(checkpoint: Checkpoint | None, text: str | None = None) -> None:
    assert checkpoint is not None
    assert checkpoint.state["consumed"] == checkpoint.step * 10
    content = (checkpoint.path / "actor" / "weights.txt").read_text()
    assert content in (text, f"weights {checkpoint.step}")
    assert set(torch.load(checkpoint.path / "random-0000.pt", weights_only=False)) >= {"python", "numpy", "torch"}


def test_nothing_saved_is_none(tmp_path):
    assert store_at(tmp_path / "absent").latest() is None
    assert store_at(tmp_path).best() is None
    with pytest.raises(CheckpointError):
        store_at(tmp_path).require_latest()


def test_saved_state_comes_back(tmp_path):
    store = store_at(tmp_path / "checkpoints")
    save(store, 3)
    latest = store_at(tmp_path / "checkpoints").latest()
    assert latest.step == 3
    assert latest.path == tmp_path / "checkpoints" / "step-000003"
    assert latest.state == {"consumed": 30, "zero_stage": 0, "step": 3, "world_size": 1, "best": None}
    assert_complete(latest)


# The crash

ATOMS = (
    (os, "fsync"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "write_text"),
    (torch, "save"),
    (shutil, "rmtree"),
)


def half_done(owner: object, name: str, arguments: tuple) -> None:
    """What a call may leave behind when it is cut off in the middle."""
    if name == "rmtree" and Path(arguments[0]).exists():
        for path in sorted(Path(arguments[0]).rglob("*"))[:2]:
            if path.is_file():
                path.unlink()
    if name == "save" and owner is torch:
        Path(arguments[1]).write_bytes(b"half a file")


@contextmanager
def crash_at(monkeypatch: pytest.MonkeyPatch, call: int, moment: str) -> Iterator[list[str]]:
    """Ends the process, so to speak, before, in or after the n-th file operation."""
    done: list[str] = []

    def trap(owner: object, name: str, original: Callable) -> Callable:
        def run(*arguments, **options):
            if len(done) == call and moment == "before":
                raise Crashed
            if len(done) == call and moment == "half":
                half_done(owner, name, arguments)
                raise Crashed
            done.append(name)
            result = original(*arguments, **options)
            if len(done) - 1 == call and moment == "after":
                raise Crashed
            return result

        return run

    with monkeypatch.context() as patch:
        for owner, name in ATOMS:
            patch.setattr(owner, name, trap(owner, name, getattr(owner, name)))
        yield done


@pytest.mark.parametrize("moment", ["before", "half", "after"])
@pytest.mark.parametrize("keep_last", [1, 2])
@pytest.mark.parametrize("best", [False, True])
def test_a_crash_anywhere_leaves_a_complete_checkpoint(tmp_path, monkeypatch, moment, keep_last, best):
    crashes, pointed = 0, set()
    for call in range(200):
        folder = tmp_path / f"{call}"
        store = store_at(folder, keep_last)
        save(store, 1, best=True)
        save(store, 2)
        with crash_at(monkeypatch, call, moment):
            try:
                save(store, 3, best=best)
                break
            except Crashed:
                crashes += 1
        after = store_at(folder, keep_last)  # the process that comes next
        latest = after.latest()
        assert latest.step in (2, 3)
        pointed.add(latest.step)
        assert_complete(latest)
        assert_complete(after.best())
        assert after.best().step in ((1, 3) if best else (1,))
        step = latest.step + 1  # it goes on from there; step 3 is repeated, whatever was left of it
        save(after, step, text="again", best=best)
        assert_complete(after.latest(), "again")
        assert (after.latest().path / "actor" / "weights.txt").read_text() == "again"
        assert after.latest().step == step
        assert after.best().step == (step if best else 1)
        assert_complete(after.best(), "again")
        assert not list(folder.glob(".*"))  # nothing half-written stays
    assert crashes > 15
    assert pointed == {2, 3}


def test_a_crash_in_the_first_save_leaves_none(tmp_path, monkeypatch):
    for call in range(200):
        folder = tmp_path / f"{call}"
        with crash_at(monkeypatch, call, "half"):
            try:
                save(store_at(folder), 1)
                break
            except Crashed:
                pass
        latest = store_at(folder).latest()
        assert latest is None or latest.step == 1
        if latest is not None:
            assert_complete(latest)
    assert call > 8


def leave_a_renamed_step(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash after the rename and before the pointer moved."""
    store = store_at(folder)
    with monkeypatch.context() as patch:

        def crash(*_: object) -> None:
            raise Crashed

        patch.setattr("rlhf.artifacts.checkpoint.write_text", crash)
        with pytest.raises(Crashed):
            save(store, step, text="orphan")
    assert (folder / f"step-{step:06d}" / "actor" / "weights.txt").read_text() == "orphan"


def test_a_step_is_saved_again_after_a_crash_before_the_pointer(tmp_path, monkeypatch):
    save(store_at(tmp_path), 2)
    leave_a_renamed_step(tmp_path, 3, monkeypatch)
    store = store_at(tmp_path)
    assert store.latest().step == 2
    save(store, 3)
    assert store.latest().step == 3
    assert_complete(store.latest())


@pytest.mark.parametrize("moment", ["before", "half", "after"])
def test_a_second_crash_in_the_repeated_save_is_harmless_too(tmp_path, monkeypatch, moment):
    for call in range(200):
        folder = tmp_path / f"{call}"
        save(store_at(folder), 2, best=True)
        leave_a_renamed_step(folder, 3, monkeypatch)
        with crash_at(monkeypatch, call, moment):
            try:
                save(store_at(folder), 3)
                break
            except Crashed:
                pass
        assert store_at(folder).latest().step in (2, 3)
        assert_complete(store_at(folder).latest())
        assert_complete(store_at(folder).best())
    assert call > 15


def test_pruning_never_takes_what_the_pointer_names(tmp_path, monkeypatch):
    # step 20 was renamed but never pointed at; the resumed run is stopped at 15, which 20 must not push out
    store = store_at(tmp_path, keep_last=1)
    save(store, 10)
    leave_a_renamed_step(tmp_path, 20, monkeypatch)
    save(store, 15)
    assert store.latest().step == 15
    assert_complete(store.latest())
    assert steps_on_disk(tmp_path) == [15]


def test_latest_and_best_move_together(tmp_path, monkeypatch):
    for call in range(200):
        folder = tmp_path / f"{call}"
        store = store_at(folder)
        save(store, 1, best=True)
        with crash_at(monkeypatch, call, "before"):
            try:
                save(store, 2, best=True)
                break
            except Crashed:
                pass
        assert store.best().step == store.latest().step


def test_saving_the_pointed_step_again_is_refused(tmp_path):
    store = store_at(tmp_path)
    save(store, 2)
    with pytest.raises(AssertionError, match="saved already"):
        save(store, 2)
    assert_complete(store.latest())


def test_order_of_a_save(tmp_path, monkeypatch):
    """Flushed before the rename, renamed before the pointer, the pointer before the old one goes."""
    save(store_at(tmp_path, keep_last=1), 1)
    events = []
    original_rename, original_replace, original_rmtree = Path.rename, Path.replace, shutil.rmtree
    original_fsync = os.fsync

    def fsync(descriptor):
        events.append(("flush", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        return original_fsync(descriptor)

    def rename(path, target):
        events.append(("rename", Path(target).name))
        return original_rename(path, target)

    def replace(path, target):
        events.append(("replace", Path(target).name))
        return original_replace(path, target)

    def rmtree(path, *arguments, **options):
        if Path(path).exists():
            events.append(("remove", Path(path).name))
        return original_rmtree(path, *arguments, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    save(store_at(tmp_path, keep_last=1), 2)
    rename_at = events.index(("rename", "step-000002"))
    flushed = {name for kind, name in events[:rename_at] if kind == "flush"}
    assert {"weights.txt", "actor", "random-0000.pt", "trainer.json", ".writing-step-000002"} <= flushed
    pointer_at = events.index(("replace", "latest"))
    folder_flush = events.index(("flush", tmp_path.name), rename_at)
    assert rename_at < folder_flush < pointer_at
    assert ("flush", ".latest.writing") in events[folder_flush:pointer_at]
    assert events.index(("remove", "step-000001")) > pointer_at


# What is kept


def test_pruning_keeps_the_last_and_the_best(tmp_path):
    store = store_at(tmp_path, keep_last=2)
    for step in range(1, 7):
        save(store, step, best=step == 2)
    assert steps_on_disk(tmp_path) == [2, 5, 6]
    assert (store.best().step, store.latest().step) == (2, 6)
    save(store, 7, best=True)
    assert steps_on_disk(tmp_path) == [6, 7]  # the former best is free to go
    assert store.best().step == 7


def test_pruning_orders_steps_as_numbers(tmp_path):
    store = store_at(tmp_path, keep_last=1)
    save(store, 999_999)
    save(store, 1_000_000)
    assert steps_on_disk(tmp_path) == [1_000_000]
    assert store.latest().step == 1_000_000


def test_without_a_best_only_the_last_are_kept(tmp_path):
    store = store_at(tmp_path, keep_last=1)
    save(store, 1)
    save(store, 2)
    assert steps_on_disk(tmp_path) == [2]
    assert store.best() is None


def test_a_pointer_to_a_damaged_folder_is_an_error(tmp_path):
    store = store_at(tmp_path)
    save(store, 4)
    (tmp_path / "step-000004" / "trainer.json").unlink()
    with pytest.raises(CheckpointError, match="step-000004 is not complete"):
        store.latest()


# Randomness and worlds


def draws() -> tuple[float, float, list[float]]:
    return random.random(), float(np.random.random()), torch.rand(3).tolist()


def test_random_state_comes_back_in_every_generator(tmp_path):
    state = random_state()
    expected = draws()
    draws()
    set_random_state(state)
    assert draws() == expected


def test_a_checkpoint_restores_the_generators_of_its_moment(tmp_path):
    store = store_at(tmp_path)
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    save(store, 1)
    expected = draws()
    save(store, 2)
    store.restore_random(Checkpoint(tmp_path / "step-000001", {"world_size": 1}))
    assert draws() == expected


def test_generators_of_another_number_of_ranks_are_left_alone(tmp_path):
    store = store_at(tmp_path)
    save(store, 1)
    torch.manual_seed(3)
    expected = torch.rand(3).tolist()
    torch.manual_seed(3)
    store.restore_random(Checkpoint(tmp_path / "step-000001", {"world_size": 2}))
    assert torch.rand(3).tolist() == expected


def test_the_newest_before_a_step_is_found(tmp_path):
    store = store_at(tmp_path, keep_last=5)
    assert store.before(9) is None
    for step in (2, 4, 6):
        save(store, step)
    (tmp_path / "step-000003").mkdir()  # not complete
    shutil.copytree(tmp_path / "step-000006", tmp_path / "step-000008")  # ahead of the pointer: a crash left it
    found = {step: store.before(step) for step in (2, 4, 5, 9)}
    assert {step: each and each.path.name for step, each in found.items()} == {
        2: None,
        4: "step-000002",
        5: "step-000004",
        9: "step-000006",
    }


def test_a_rewound_store_goes_on_from_there(tmp_path):
    store = store_at(tmp_path, keep_last=5)
    for step in (2, 4, 6):
        save(store, step)
    target = store.before(5)
    assert target is not None
    store.rewind(target)
    assert steps_on_disk(tmp_path) == [2, 4]
    assert_complete(store.latest())
    assert store.require_latest().step == 4
    save(store, 6, text="again")
    assert_complete(store.latest(), "again")
    assert steps_on_disk(tmp_path) == [2, 4, 6]
