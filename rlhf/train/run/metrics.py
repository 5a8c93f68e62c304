"""The output of a run while it trains: metrics.jsonl, sample answers, a progress bar, trackers. Rank 0 only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rlhf.artifacts.files import append_line
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.metric_names import metric_of
from rlhf.train.run.trackers import Tracker

PLAIN_INTERVAL_S = 10.0


class MetricsLog:
    """Writes one object per step, under the names of rlhf/config/metrics.yaml.

    Args:
        folder: the run's folder.
        total: the last step of the run; `start`: the step after which it begins.
        active: False on all ranks but 0; every method does nothing there.
        shown: names of the metrics in the progress line.
        open_trackers: opens the services that get metrics, samples, events and reports too.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        total: int,
        start: int,
        active: bool,
        shown: Sequence[str],
        open_trackers: Callable[[], dict[str, Tracker]] = dict,
    ) -> None:
        self._active, self._total, self._shown = active, total, tuple(shown)
        self._folder, self._start = folder, start
        self._open_trackers = open_trackers
        self._console = Console(stderr=True)
        self._began = self._last_plain = time.monotonic()
        self._trackers: dict[str, Tracker] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> MetricsLog:
        if self._active and self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("", total=self._total, completed=self._start)
            self._progress.start()
        self._began = self._last_plain = time.monotonic()  # packages are loaded above
        return self

    def open(self) -> None:
        """Opens the trackers. Called on rank 0 before the log is entered, so that every rank learns of an error.

        Raises: ConfigError for a service that cannot be opened.
        """
        self._trackers = self._open_trackers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._track(lambda tracker: tracker.close(failed=kind is not None))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Records the metrics of one step in all outputs."""
        if not self._active:
            return
        unknown = [name for name in values if metric_of(name) is None]
        assert not unknown, f"metrics that rlhf/config/metrics.yaml does not describe: {unknown}"
        append_line(self._folder.metrics, {"step": step, **values, "time/wall_s": time.monotonic() - self._began})
        self._track(lambda tracker: tracker.metrics(step, values))
        line = "  ".join(f"{name} {values[name]:.4g}" for name in self._shown if name in values)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=line)
        else:
            self._plain(step, line)

    def _plain(self, step: int, line: str) -> None:
        """Prints a line now and then where there is no terminal for a bar."""
        now = time.monotonic()
        if now - self._last_plain < PLAIN_INTERVAL_S and step not in (self._start + 1, self._total):
            return
        self._last_plain = now
        left = (now - self._began) / max(1, step - self._start) * (self._total - step)
        sys.stderr.write(f"step {step}/{self._total}  {line}  about {left:.0f} s left\n")
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """Prints a line beside the progress bar."""
        if self._active:
            self._console.print(text, highlight=False, soft_wrap=True)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends sample answers."""
        if self._active:
            for row in rows:
                append_line(self._folder.samples, {"step": step, **row})
            self._track(lambda tracker: tracker.samples(step, rows))

    def event(self, step: int, text: str) -> None:
        """Prints a line beside the progress bar and records it, such as that a tripwire has tripped."""
        self.say(text)
        self._track(lambda tracker: tracker.event(step, text))

    def report(self, name: str, card: Mapping[str, Any]) -> None:
        """Records a report, such as the reward model's card."""
        self._track(lambda tracker: tracker.report(name, card))

    def _track(self, action: Callable[[Tracker], None]) -> None:
        """Gives something to every service. One that fails is said and left out: a run does not end for it."""
        for name in list(self._trackers):
            try:
                action(self._trackers[name])
            except Exception as error:  # noqa: BLE001 (services raise errors of their own, and of their networks)
                del self._trackers[name]
                self.say(f"warning: {name} failed and gets nothing more of this start: {type(error).__name__}: {error}")
