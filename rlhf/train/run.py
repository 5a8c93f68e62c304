"""One run from its command line to its end: ranks, folder, lock, state, and errors a person can act on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from rlhf.artifacts.checkpoint import Checkpoint, CheckpointStore
from rlhf.artifacts.files import write_text
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.arguments import parse_stage_arguments
from rlhf.config.load import dump_config, load_config
from rlhf.config.schema import STAGES, StageConfig
from rlhf.engine.ranks import Ranks, is_main_process, session
from rlhf.errors import RlhfError

Config = TypeVar("Config", bound=StageConfig)
DRY_RUN_STEPS = 2


@dataclass(slots=True)
class Run(Generic[Config]):
    """What a stage works with. `step` is the last step completed; `reason` says why it ended before its time."""

    stage: str
    config: Config
    ranks: Ranks
    folder: RunFolder
    store: CheckpointStore
    resumed: Checkpoint | None
    dry_run: bool
    step: int = 0
    reason: str = ""

    def say(self, text: str) -> None:
        """A line to the person watching, once."""
        if self.ranks.is_main:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def last_step(self, planned: int) -> int:
        """The step this run ends at: all of `planned`, or `run.max_steps`."""
        limit = DRY_RUN_STEPS if self.dry_run else self.config.run.max_steps
        return planned if limit is None else min(planned, limit)

    def on_main(self, action: Callable[[], Any]) -> Any:
        """Does `action` on rank 0; its result, or its error, reaches every rank."""
        return self.ranks.on_main(action)


def launch(stage: str, argv: Sequence[str], train: Callable[[Run[Any]], None]) -> int:
    """Parses, loads, opens and trains; the exit status. An error of this package is shown without a traceback."""
    try:
        arguments = parse_stage_arguments(stage, argv)
        config = load_config(STAGES[stage], arguments.config_path, arguments.overrides)
        with open_run(stage, config, resume=arguments.resume == "auto", dry_run=arguments.dry_run) as run:
            train(run)
    except RlhfError as error:
        if is_main_process():
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def leave(status: int) -> NoReturn:
    """Ends this process here and now; everything is written by then.

    Threads inside torch and DeepSpeed can abort an interpreter that unwinds: on a busy machine a rank that had finished
    ended with status -6, and the launcher called the run failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def open_run(stage: str, config: Config, *, resume: bool, dry_run: bool) -> Iterator[Run[Config]]:
    """Joins the ranks, prepares and locks the folder, and writes state.json through to the end."""
    with session(config.run.seed) as ranks:
        scratch = Path(config.run.dir).resolve().with_name(f".dry-run-{ranks.from_main(os.getpid())}")
        folder = RunFolder(scratch if dry_run else config.run.dir)
        store = CheckpointStore(folder.checkpoints, ranks, keep_last=config.checkpoint.keep_last)
        run = Run(stage, config, ranks, folder, store, None, dry_run)
        with _scratch_removed(run), _held_by_main(run, resume):
            try:
                yield run
            except BaseException as error:
                _set_state(run, "failed", str(error) or type(error).__name__)
                raise
            _set_state(run, "finished", run.reason)
        if dry_run:
            run.say(f"dry run passed: {run.step} steps, a save, a reload, samples and an export; nothing was kept")


@contextmanager
def _scratch_removed(run: Run[Config]) -> Iterator[None]:
    """A dry run's folder is gone at the end, however it ends."""
    try:
        yield
    finally:
        if run.dry_run and run.ranks.is_main:
            shutil.rmtree(run.folder.path, ignore_errors=True)


@contextmanager
def _held_by_main(run: Run[Config], resume: bool) -> Iterator[None]:
    """The folder prepared and its lock held by rank 0; the other ranks learn whether that worked."""
    lock = run.folder.locked()

    def hold() -> None:
        lock.__enter__()
        try:
            run.folder.prepare(resume=resume)
        except RlhfError:
            lock.__exit__(None, None, None)
            raise

    run.on_main(hold)
    try:
        if resume and not run.dry_run:
            _find_checkpoint(run)
        if run.ranks.is_main:
            write_text(run.folder.path / "config.yaml", dump_config(run.config))
        _set_state(run, "running")
        yield
    finally:
        if run.ranks.is_main:
            lock.__exit__(None, None, None)


def _find_checkpoint(run: Run[Config]) -> None:
    """The checkpoint to go on from, refused before anything in the folder changes."""
    run.resumed = run.store.latest()
    if run.resumed is not None:
        run.store.require_same_world(run.resumed, run.config.deepspeed.zero_stage)
        run.step = run.resumed.step


def _set_state(run: Run[Config], status: Any, reason: str = "") -> None:
    if run.ranks.is_main:
        run.folder.set_state(status, stage=run.stage, step=run.step, reason=reason)
