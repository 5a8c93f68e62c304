"""Checkpoints, written atomically and never partial.

A checkpoint is written into a folder with another name, flushed, then renamed; the pointer moves after that, and
older ones are removed last. At every moment the pointer names a complete checkpoint or none. checksums.json holds the
hash of each file, so that one damaged since is found before it is used.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf.artifacts.files import flush_folder, flush_tree, read_json, refusal, write_json, write_text
from rlhf.artifacts.integrity import CHECKSUMS_FILE, checksums, damage
from rlhf.engine.ranks import Ranks
from rlhf.errors import CheckpointError

STATE_FILE = "trainer.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint: its folder, and the trainer state saved in it."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


class CheckpointStore:
    """The checkpoints of one run. Every method is called by all ranks together."""

    def __init__(self, folder: Path, ranks: Ranks, *, keep_last: int) -> None:
        self._folder, self._ranks, self._keep_last = folder, ranks, keep_last

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None], *, best: bool = False) -> None:
        """Saves `state` (JSON) and what every rank's `write(folder)` leaves; `best` keeps it from being pruned.

        Which checkpoint is best is part of the state, so that it moves together with `latest`.

        Raises: CheckpointError on a rank that cannot write; what was complete before is kept.
        """
        final = self._path(step)
        before = self.latest()
        assert before is None or before.path != final, f"{final} is saved already"
        best_name = final.name if best else None if before is None else before.state["best"]
        writing = self._folder / f".writing-{final.name}"
        with _writable(final, before):
            if self._ranks.is_main:
                for leftover in self._folder.glob(".writing-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                writing.mkdir(parents=True)
            self._ranks.barrier()
            write(writing)
            torch.save(random_state(), writing / f"random-{self._ranks.rank:04d}.pt")
            if self._ranks.is_main:
                whole = {**state, "step": step, "best": best_name, "world_size": self._ranks.world_size}
                write_json(writing / STATE_FILE, whole)
            self._ranks.barrier()
            sums = checksums(writing, self._ranks)
            if self._ranks.is_main:
                self._complete(writing, final, sums)
        self._ranks.barrier()

    def _complete(self, writing: Path, final: Path, sums: dict[str, Any]) -> None:
        """The folder as written becomes the newest checkpoint."""
        write_json(writing / CHECKSUMS_FILE, sums)
        flush_tree(writing)
        if final.exists():  # left by a crash after its rename and before the pointer moved
            shutil.rmtree(final)
        writing.rename(final)
        flush_folder(self._folder)
        write_text(self._folder / "latest", final.name)
        self._prune(_number(final))

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint, or None."""
        pointer = self._folder / "latest"
        return self._named(pointer.read_text(encoding="utf-8").strip()) if pointer.is_file() else None

    def require_latest(self) -> Checkpoint:
        """The newest complete checkpoint.

        Raises: CheckpointError when there is none.
        """
        checkpoint = self.latest()
        if checkpoint is None:
            raise CheckpointError(f"{self._folder} holds no complete checkpoint", fix="start without --resume")
        return checkpoint

    def best(self) -> Checkpoint | None:
        """The checkpoint that was best when the newest was saved, or None."""
        latest = self.latest()
        return None if latest is None or latest.state["best"] is None else self._named(latest.state["best"])

    def undamaged(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint whose files are what was saved; None where none was ever complete.

        Damaged ones are reported with `say` and left as they are.

        Raises: CheckpointError when all are damaged.
        """
        names: list[str] = self._ranks.from_main(self._newest_first() if self._ranks.is_main else [])
        for name in names:
            problem = self._damage(name)
            if not problem:
                return self._named(name)
            say(f"warning: {self._folder / name} is damaged: {problem}. Trying the one before it")
        if names:
            raise CheckpointError(
                f"every checkpoint in {self._folder} is damaged ({', '.join(names)})",
                fix="restore one of these folders, or start a new run",
            )
        return None

    def named(self, name: str) -> Checkpoint:
        """The checkpoint of that name, such as step-000100.

        Raises: CheckpointError when it is not there, or damaged.
        """
        complete: list[str] = self._ranks.from_main(self._newest_first() if self._ranks.is_main else [])
        name = Path(name).name
        if name not in complete:
            raise CheckpointError(
                f"{self._folder} holds no checkpoint {name}",
                where="--resume",
                expected=f"one of {', '.join(complete)}" if complete else "a run with a checkpoint",
            )
        problem = self._damage(name)
        if problem:
            raise CheckpointError(
                f"{self._folder / name} is damaged: {problem}",
                where="--resume",
                fix="use --resume auto: it continues from the newest undamaged checkpoint",
            )
        return self._named(name)

    def require_undamaged(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError, naming the file, when its files are not what was saved."""
        problem = self._damage(checkpoint.path.name)
        if problem:
            raise CheckpointError(f"{checkpoint.path} is damaged: {problem}", fix="restore that file from a copy")

    def go_back_to(self, checkpoint: Checkpoint) -> None:
        """Makes it the newest; what was saved after it is kept under another name, aside-step-000100."""
        self._ranks.barrier()
        if self._ranks.is_main:
            for number, path in self._saved():
                if number > checkpoint.step:
                    path.rename(_free_name(self._folder / f"aside-{path.name}"))
            flush_folder(self._folder)
            write_text(self._folder / "latest", checkpoint.path.name)
        self._ranks.barrier()

    def before(self, step: int) -> Checkpoint | None:
        """The newest complete checkpoint of a step below `step`, or None; the same on every rank."""

        def find() -> Checkpoint | None:
            latest = self.latest()
            limit = min(step, 0 if latest is None else latest.step + 1)
            saved = dict(self._saved())
            numbers = [number for number in saved if number < limit and (saved[number] / STATE_FILE).is_file()]
            return self._named(saved[max(numbers)].name) if numbers else None

        return self._ranks.from_main(find() if self._ranks.is_main else None)

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Makes an older checkpoint the newest one; those after it are removed."""
        self._ranks.barrier()
        if self._ranks.is_main:
            write_text(self._folder / "latest", checkpoint.path.name)
            self._prune(checkpoint.step)
        self._ranks.barrier()

    def restore_random(self, checkpoint: Checkpoint) -> None:
        """Every generator of this rank, as it was.

        With another number of ranks they start from the run's seed; what decides a run is drawn by (seed, step, row).
        """
        if checkpoint.state["world_size"] == self._ranks.world_size:
            path = checkpoint.path / f"random-{self._ranks.rank:04d}.pt"
            set_random_state(torch.load(path, weights_only=False))

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"

    def _named(self, name: str) -> Checkpoint:
        path = self._folder / name
        if not (path / STATE_FILE).is_file():
            raise CheckpointError(f"{path} is not complete", fix="restore that folder, or start a new run")
        try:
            return Checkpoint(path, read_json(path / STATE_FILE))
        except ValueError as error:
            raise CheckpointError(f"{path / STATE_FILE} is damaged: {error}", fix="restore that file") from error

    def _newest_first(self) -> list[str]:
        """What the pointer names, and complete checkpoints older than that."""
        pointer = self._folder / "latest"
        if not pointer.is_file():
            return []
        newest = pointer.read_text(encoding="utf-8").strip()
        older = [path.name for number, path in self._saved() if number < _number(self._folder / newest)]
        return [newest, *(name for name in reversed(older) if (self._folder / name / STATE_FILE).is_file())]

    def _damage(self, name: str) -> str:
        """What is wrong with a checkpoint's files; the same on every rank."""
        problem = self._ranks.from_main(_unreadable(self._folder / name) if self._ranks.is_main else "")
        return problem or damage(self._folder / name, self._ranks)

    def _saved(self) -> list[tuple[int, Path]]:
        """Every step folder by its number, oldest first."""
        return sorted((_number(path), path) for path in self._folder.glob("step-*"))

    def _prune(self, step: int) -> None:
        """Removes older checkpoints and what a crash left ahead of the pointer, but nothing that a pointer names."""
        named = {pointed.path for pointed in (self.latest(), self.best()) if pointed is not None}
        saved = self._saved()
        older = [path for number, path in saved if number <= step]
        ahead = [path for number, path in saved if number > step]
        for path in [*older[: -self._keep_last], *ahead]:
            if path not in named:
                shutil.rmtree(path)


def _number(path: Path) -> int:
    try:
        return int(path.name.removeprefix("step-"))
    except ValueError:
        raise CheckpointError(
            f"{path} is not named like a checkpoint", expected="step-000100", fix="move it out of that folder"
        ) from None


def _unreadable(path: Path) -> str:
    """Why a checkpoint's state cannot be read; empty where it can."""
    if not path.is_dir():
        return "the folder is missing"
    try:
        read_json(path / STATE_FILE)
    except FileNotFoundError:
        return f"{STATE_FILE} is missing"
    except (OSError, ValueError) as error:
        return f"{STATE_FILE} cannot be read ({error})"
    return ""


def _free_name(path: Path) -> Path:
    """The path, or the first of path-2, path-3 and so on that is free."""
    names = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return path if not path.exists() else next(each for each in names if not each.exists())


def _free_space(writing: Path) -> None:
    """Frees the space of a partial folder for state.json; files are emptied first, as torch holds one open."""
    for path in writing.rglob("*"):
        if path.is_file():
            with suppress(OSError):
                os.truncate(path, 0)
    shutil.rmtree(writing, ignore_errors=True)


@contextmanager
def _writable(final: Path, before: Checkpoint | None) -> Iterator[None]:
    """Turns a refusal of the disk into an error that says what is kept."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = refusal(error)
        if cause is None:
            raise
        kept = f"{before.path} is kept and complete" if before is not None else "no checkpoint was complete before it"
        _free_space(final.with_name(f".writing-{final.name}"))
        raise CheckpointError(
            f"{final} cannot be written: {cause}; {kept}",
            fix="free or add space (checkpoint.keep_last and one more must fit), then start with --resume auto",
        ) from error


def random_state() -> dict[str, Any]:
    """State of Python's, NumPy's and torch's generators."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
