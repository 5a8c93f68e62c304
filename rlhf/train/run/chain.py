"""Stages that are started one after another by a command: checked before the first, kept once finished, timed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.schema import StageConfig
from rlhf.config.stages import STAGES
from rlhf.errors import ConfigError, TrainingError
from rlhf.train.run.before_start import chain_problems
from rlhf.train.run.start import start_stage


@dataclass(frozen=True, slots=True)
class ChainedStage:
    """One stage of a chain.

    Attributes:
        name: in messages, and of its part of the time.
        config_path: a YAML file or `recipe:NAME`.
        words: `key=value` overrides, run.dir among them.
        ranks: processes; None leaves it to the launcher.
    """

    name: str
    stage: str
    config_path: str
    words: tuple[str, ...]
    folder: Path
    ranks: int | None = None

    def config(self) -> StageConfig:
        """The resolved configuration. Raises ConfigError with every problem."""
        return load_config(STAGES[self.stage].config, self.config_path, self.words)

    @property
    def is_finished(self) -> bool:
        """Whether its run is finished and has exported a model."""
        return RunFolder(self.folder).status() == "finished" and (self.folder / "model" / "config.json").is_file()

    def run(self) -> None:
        """Starts the stage, or resumes it, and waits for its end.

        Raises: TrainingError, with the reason that the run gave, when it did not finish.
        """
        words = ["--config", self.config_path, "--resume", "auto", *self.words]
        status = start_stage(self.stage, words, ranks=self.ranks)
        state = RunFolder(self.folder).state()
        if status or state.get("status") != "finished":
            reason = state.get("reason", "")
            raise TrainingError(f"stage {self.name} ended with status {status}: {reason}", where=str(self.folder))


def check_chain(stages: Sequence[ChainedStage], *, earlier: Collection[str] = (), made: Collection[str] = ()) -> None:
    """Refuses, before the first stage starts, what would end any of them: keys, data, paths, warm-up.

    Args:
        earlier: run folders that exist by then.
        made: data files that are written before the stage which reads them.

    Raises: ConfigError with every problem.
    """
    configs: dict[str, StageConfig] = {}
    problems: list[ConfigError] = []
    for stage in stages:
        try:
            configs[stage.name] = stage.config()
        except ConfigError as error:
            problems += error.problems or (error,)
    problems += chain_problems(configs, earlier=earlier, made=made)
    if problems:
        raise ConfigError.collect(problems)


@dataclass(slots=True)
class PartTimes:
    """How long each part took, over all starts of the command: by the clock, and of all processors together.

    keep: called after each part, to store the times.
    """

    keep: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Adds the time of the block to a part, also where the block is ended by an error."""
        started, worked = time.perf_counter(), processor_seconds()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started
            self.cpu_seconds[part] = self.cpu_seconds.get(part, 0.0) + processor_seconds() - worked
            self.keep()

    def forget(self, part: str) -> None:
        """Drops the time of a part that is made anew."""
        self.seconds.pop(part, None)
        self.cpu_seconds.pop(part, None)

    def run(self, part: str, folder: Path, finished: bool, make: Callable[[], None]) -> None:
        """Makes a part, timed; one that is finished is kept."""
        if finished:
            sys.stderr.write(f"{part}: {folder} is finished and kept\n")
            return
        sys.stderr.write(f"\n== {part} ==\n")
        with self.timing(part):
            make()


def processor_seconds() -> float:
    """Seconds that processors have worked for this process and those it has started and seen end."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
