"""The first failure among a run's ranks. Later errors of other ranks, such as a broken connection, are its effects."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf.artifacts.files import read_json


@dataclass(frozen=True, slots=True)
class RankFailure:
    """Which rank failed, in the step after `step`, and why."""

    rank: int
    step: int
    reason: str


class FailureRecord:
    """One file in the run folder; the first rank to write it wins."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ".failure.json"

    def write(self, failure: RankFailure) -> RankFailure:
        """The first failure: this one, or that of a quicker rank. Never raises: an error is already being handled."""
        beside = self._file.with_name(f"{self._file.name}.{failure.rank}")
        try:
            beside.write_text(json.dumps(asdict(failure), ensure_ascii=False), encoding="utf-8")
            os.link(beside, self._file)
        except OSError:  # written already, or the disk is full
            return self.read() or failure
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        return failure

    def read(self) -> RankFailure | None:
        """What was written, or None."""
        try:
            return RankFailure(**read_json(self._file))
        except (OSError, ValueError, TypeError):
            return None

    def clear(self) -> None:
        """Forgets the failure of an earlier start."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
