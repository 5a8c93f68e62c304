"""One run from its command line to its end: ranks, folder, lock, state, and errors a person can act on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from rlhf.artifacts.checkpoint import Checkpoint, CheckpointStore
from rlhf.artifacts.files import append_line, refusal, write_text
from rlhf.artifacts.run_folder import RankFailure, RunFolder
from rlhf.config.arguments import parse_stage_arguments
from rlhf.config.load import dump_config, load_config
from rlhf.config.schema import StageConfig
from rlhf.config.stages import STAGES
from rlhf.engine.launcher_watch import UNFINISHED
from rlhf.engine.ranks import Ranks, is_main_process, session
from rlhf.errors import ArtifactError, PreemptedError, RlhfError
from rlhf.train.run.memory_check import require_memory
from rlhf.train.run.resume import require_room, require_same_run
from rlhf.train.run.watchdog import Watchdog

Config = TypeVar("Config", bound=StageConfig)
DRY_RUN_STEPS = 2


@dataclass(slots=True)
class Run(Generic[Config]):
    """One run of a stage. `step` is the last completed step; `reason` says why the run ended early; `resolved` holds
    what the run chose where the configuration leaves a choice; `watchdog` exists once the folder is locked."""

    stage: str
    config: Config
    ranks: Ranks
    folder: RunFolder
    store: CheckpointStore
    resumed: Checkpoint | None
    dry_run: bool
    step: int = 0
    reason: str = ""
    resolved: dict[str, Any] = field(default_factory=dict)
    watchdog: Watchdog = field(init=False)

    def say(self, text: str) -> None:
        """Prints a line on rank 0."""
        if self.ranks.is_main:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def say_all(self, lines: Iterable[str]) -> None:
        """Prints lines on rank 0."""
        for line in lines:
            self.say(line)

    def last_step(self, planned: int) -> int:
        """The step at which this run ends: `planned`, or `run.max_steps` if that is less."""
        limit = DRY_RUN_STEPS if self.dry_run else self.config.run.max_steps
        return planned if limit is None else min(planned, limit)

    def on_main(self, action: Callable[[], Any]) -> Any:
        """Calls `action` on rank 0; every rank gets its result or raises its error."""
        return self.ranks.on_main(action)


class _ConsequenceError(Exception):
    """This rank ends because another rank failed first."""

    def __init__(self, failure: RankFailure, *, reports: bool) -> None:
        self.reports = reports
        super().__init__(f"rank {failure.rank} failed first: {failure.reason.splitlines()[0]}")


def launch(stage: str, argv: Sequence[str], train: Callable[[Run[Any]], None]) -> int:
    """Parses the command line, loads the configuration, opens the run and trains.

    Returns the exit status: 0, 1 for an error, 75 for a run that was asked to stop. An error of this package is shown
    without a traceback, and only by the rank that raised it first.
    """
    opened = False
    try:
        arguments = parse_stage_arguments(stage, argv)
        config = load_config(STAGES[stage].config, arguments.config_path, arguments.overrides)
        with open_run(stage, config, resume=arguments.resume, dry_run=arguments.dry_run) as run:
            opened = True
            require_memory(run.config, run.ranks, run.say)
            train(run)
    except PreemptedError as error:
        return _reported(str(error), UNFINISHED, reports=is_main_process())
    except _ConsequenceError as error:
        return _reported(f"the run ends: {error}", 1, reports=error.reports)
    except RlhfError as error:
        return _reported(f"{type(error).__name__}: {error}", 1, reports=opened or is_main_process())
    return 0


def _reported(text: str, status: int, *, reports: bool) -> int:
    if reports:
        sys.stderr.write(text + "\n")
    return status


def leave(status: int) -> NoReturn:
    """Ends this process at once; everything must be written by then.

    Threads inside torch and DeepSpeed can abort an interpreter that unwinds: on a busy machine a rank that had finished
    ended with status -6, and the launcher called the run failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def open_run(stage: str, config: Config, *, resume: str, dry_run: bool) -> Iterator[Run[Config]]:
    """Joins the ranks, prepares and locks the folder, and keeps state.json up to date until the end.

    Args:
        resume: never, auto, or the name of a checkpoint.
    """
    with session(config.run.seed, step_limit_s=_step_limit_s(config)) as ranks:
        scratch = Path(config.run.dir).resolve().with_name(f".dry-run-{ranks.from_main(os.getpid())}")
        folder = RunFolder(scratch if dry_run else config.run.dir)
        store = CheckpointStore(folder.checkpoints, ranks, keep_last=config.checkpoint.keep_last)
        run = Run(stage, config, ranks, folder, store, None, dry_run)
        with _scratch_removed(run), _held_by_main(run, resume), run.watchdog.watching(), _state_recorded(run):
            yield run
        if dry_run:
            run.say(f"dry run passed: {run.step} steps, a save, a reload, samples and an export; nothing was kept")


@contextmanager
def _state_recorded(run: Run[Config]) -> Iterator[None]:
    """Writes into state.json how the block ended; when ranks fail one after another, the first error counts."""
    try:
        yield
    except PreemptedError as error:
        _set_state(run, "preempted", error.problem)
        run.ranks.barrier()
        raise
    except BaseException as error:
        first, own = run.watchdog.cause(error)
        reports = run.watchdog.reports(first)
        if reports:
            _set_failed(run, first.reason)
        if not own:
            raise _ConsequenceError(first, reports=reports) from error
        if isinstance(error, OSError) and (cause := _full_disk(run, error)):
            raise cause from error
        raise
    _set_state(run, "finished", run.reason)


def _full_disk(run: Run[Config], error: OSError) -> ArtifactError | None:
    """The error of a full or read-only run folder, with its remedy; None for an error of another kind."""
    named = Path(str(error.filename)).resolve() if error.filename else run.folder.path.resolve()
    cause = refusal(error)
    if cause is None or not named.is_relative_to(run.folder.path.resolve()):
        return None
    return ArtifactError(
        f"{named} cannot be written: {cause}; the last checkpoint is kept",
        where="run.dir",
        fix="free or add space, then start with --resume auto",
    )


@contextmanager
def _scratch_removed(run: Run[Config]) -> Iterator[None]:
    """Removes the folder of a dry run at its end."""
    try:
        yield
    finally:
        if run.dry_run and run.ranks.is_main:
            shutil.rmtree(run.folder.path, ignore_errors=True)


@contextmanager
def _held_by_main(run: Run[Config], resume: str) -> Iterator[None]:
    """Rank 0 prepares and locks the folder; the other ranks learn whether that worked."""
    lock = run.folder.locked()

    def hold() -> None:
        lock.__enter__()
        try:
            run.folder.prepare(resume=resume != "never")
        except RlhfError:
            lock.__exit__(None, None, None)
            raise

    run.on_main(hold)
    try:
        if resume != "never" and not run.dry_run:
            _find_checkpoint(run, resume)
        run.ranks.stop.watch_file(run.folder.stop_file)
        run.watchdog = _watchdog(run)
        if run.ranks.is_main:
            write_text(run.folder.path / "config.yaml", dump_config(run.config))
        _set_state(run, "running")
        yield
    finally:
        if run.ranks.is_main:
            lock.__exit__(None, None, None)


def _watchdog(run: Run[Config]) -> Watchdog:
    return Watchdog(
        run.folder.path,
        run.ranks,
        step=lambda: run.step,
        timeout_s=_step_limit_s(run.config),
        failed=lambda reason: _set_failed(run, reason),
    )


def _step_limit_s(config: StageConfig) -> float | None:
    minutes = config.run.watchdog_minutes
    return None if minutes is None else minutes * 60


def _find_checkpoint(run: Run[Config], wanted: str) -> None:
    """Finds the checkpoint to continue from, or refuses it before anything in the folder changes."""
    found = run.store.undamaged(run.say) if wanted == "auto" else run.store.named(wanted)
    if found is None:
        return
    changed = require_same_run(found, run.config)
    if run.folder.status() == "finished":
        run.say(f"{run.folder.path} has finished, at step {found.step}: what is left to do, if anything, is done")
    else:
        run.on_main(lambda: require_room(found))
    run.store.go_back_to(found)
    run.resumed, run.step = found, found.step
    for change in changed:
        run.say(f"changed since the checkpoint of step {found.step}: {change.text}")
    if changed and run.ranks.is_main:
        for change in changed:
            row = {"step": found.step, "key": change.key, "old": change.old, "new": change.new}
            append_line(run.folder.changes, row)


def _set_failed(run: Run[Config], reason: str) -> None:
    try:
        run.folder.set_state("failed", stage=run.stage, step=run.step, reason=reason)
    except OSError as error:  # the failure may be a full disk
        sys.stderr.write(f"state.json cannot be written: {error.strerror}\n")


def _set_state(run: Run[Config], status: Any, reason: str = "") -> None:
    if run.ranks.is_main:
        run.folder.set_state(status, stage=run.stage, step=run.step, reason=reason)
