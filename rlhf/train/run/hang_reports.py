"""What each rank says of itself when a step takes too long, and which rank the others wait for."""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HangReport:
    """Where a rank is.

    Args:
        place: the line of this package that its main thread is at.
        waits: whether that line calls a collective.
        arrived: collectives of each group, and messages, that the rank has begun.
    """

    rank: int
    place: str
    waits: bool
    arrived: Mapping[str, int]


class HangFolder:
    """`hang/` of a run folder: one report and the stacks of each rank."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "hang"

    def asked(self) -> bool:
        """Whether some rank has reported, so that all should."""
        return self._path.is_dir() and any(self._path.iterdir())

    def write(self, report: HangReport) -> None:
        """Writes the report, then the stacks of all threads of this process, here and to stderr."""
        self._path.mkdir(exist_ok=True)
        with self._file(report.rank).open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report), ensure_ascii=False) + "\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)

    def read(self, world_size: int) -> list[HangReport | None]:
        """Reports by rank; None for a rank that gives none."""
        return [self._read(rank) for rank in range(world_size)]

    def _read(self, rank: int) -> HangReport | None:
        try:
            return HangReport(**json.loads(self._file(rank).read_text(encoding="utf-8").splitlines()[0]))
        except (OSError, IndexError, ValueError, TypeError):
            return None

    def _file(self, rank: int) -> Path:
        return self._path / f"rank-{rank:04d}.txt"


def hanging(reports: Sequence[HangReport | None]) -> list[int]:
    """The ranks that the others wait for: those that do not answer, or that arrived less often than another rank.

    A stack alone cannot tell: under NCCL a rank that waits does so wherever it next reads a number from the GPU. A rank
    that is behind in one group and ahead in another waits itself. Where all have arrived equally often, the stacks
    decide.
    """
    silent = [rank for rank, report in enumerate(reports) if report is None]
    known = [report for report in reports if report is not None]
    most, least = _extremes(known)
    behind = [each for each in known if any(count < most[name] for name, count in each.arrived.items())]
    last = [each.rank for each in behind if all(count == least[name] for name, count in each.arrived.items())]
    found = silent + (last or [each.rank for each in behind if not each.waits])
    return sorted(found or [each.rank for each in known if not each.waits])


def described(reports: Sequence[HangReport | None]) -> str:
    """One phrase per rank, those that hang first."""
    guilty = hanging(reports)
    order = [*guilty, *(rank for rank in range(len(reports)) if rank not in guilty)]
    return "; ".join(_phrase(rank, reports[rank], hangs=rank in guilty) for rank in order)


def _phrase(rank: int, report: HangReport | None, *, hangs: bool) -> str:
    if report is None:
        return f"rank {rank} does not answer"
    return f"rank {rank} {'hangs' if hangs else 'waits for others'} in {report.place}"


def _extremes(reports: Sequence[HangReport]) -> tuple[dict[str, int], dict[str, int]]:
    """The largest and the smallest count of each group."""
    names = {name for report in reports for name in report.arrived}
    counts = {name: [each.arrived[name] for each in reports if name in each.arrived] for name in names}
    return {name: max(each) for name, each in counts.items()}, {name: min(each) for name, each in counts.items()}
