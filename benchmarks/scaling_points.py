"""What scaling.py measures: curves, each a number that grows while everything else stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_setting import Sizes

# A GPT-NeoX of 7.3 M parameters; every curve changes one thing of it. Lengths in tokens.
BASE = Sizes(
    hidden=256, layers=4, heads=4, vocabulary=8000, longest=256, micro_tokens=4096, sequences=8, rankings=2, answers=4,
    answer=64, slots=(8,), prompt=64, new_tokens=32, rollout=16, steps=3,
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One measurement: its place on the curve, the part of gpu_part.py that runs, and on how many ranks."""

    x: float
    part: str
    sizes: Sizes
    ranks: int = 1


@dataclass(frozen=True)
class Curve:
    """points of one measure. `time` names the figure of a part that is its time in seconds."""

    name: str
    points: Sequence[Point]
    time: str = "step_s"


def parameters(sizes: Sizes) -> int:
    from rlhf.plan.shapes import neox

    return neox("measured", sizes.layers, sizes.hidden, sizes.heads, vocabulary=sizes.vocabulary).parameters


def curves(*, quick: bool) -> list[Curve]:
    """All of them; quick: two small points of each."""
    shapes = [(256, 4, 4), (512, 6, 8), (768, 12, 12), (1024, 26, 16)]
    lengths, answers = (64, 128, 256, 512, 1024), (2, 4, 8, 16)
    rollouts, slots = (4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32, 64)
    base = BASE
    if quick:
        base = replace(BASE, hidden=64, layers=2, vocabulary=400, sequences=4, steps=1, new_tokens=8, prompt=16)
        shapes, lengths, answers, rollouts, slots = [(64, 2, 4), (96, 2, 4)], (32, 64), (2, 4), (4, 8), (1, 2)
    sized = [replace(base, hidden=h, layers=n, heads=k, sequences=4) for h, n, k in shapes]
    return [
        Curve("tokens", [Point(n, "sft sdpa", replace(base, longest=n)) for n in lengths]),
        Curve("answers", [Point(k, "reward", replace(base, answers=k)) for k in answers]),
        Curve("parameters", [Point(parameters(sizes), "sft sdpa", sizes) for sizes in sized]),
        Curve("ranks", [Point(n, "sft sdpa", replace(base, sequences=16), ranks=n) for n in (1, 2)]),
        Curve("prompts", [Point(n, "ppo", replace(base, rollout=n)) for n in rollouts], "iteration_s"),
        Curve("slots", [Point(n, "decode", replace(base, slots=(n,))) for n in slots], "decode_step_s"),
    ]


@dataclass(frozen=True)
class DataCurve:
    """A command on files of so many rows."""

    name: str
    rows: Sequence[int]

    def words(self, source: Path, folder: Path) -> list[str]:
        """The command line after `rlhf data`."""
        return {
            "import": ["import", "--in", str(source), "--out", str(folder / "imported.jsonl")],
            "check": ["check", str(source), "--stage", "sft"],
            "filter": ["filter", "--in", str(source), "--out", str(folder / "kept.jsonl"), "--clean"],
        }[self.name]


def data_curves(*, quick: bool) -> list[DataCurve]:
    rows = (200, 400) if quick else (4_000, 16_000, 64_000, 256_000)
    return [DataCurve(name, rows) for name in ("import", "check", "filter")]
