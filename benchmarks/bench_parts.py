"""The parts of `make bench`: a script each, with what it is given and how long it takes on two quiet cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import ROOT

BENCHMARKS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """One script. `minutes` decides whether it still fits; `quick` replaces `words` to try the script.

    needs: why it cannot run here; empty where it can. data: whether it is given the folder of rows. folder: of scripts.
    """

    name: str
    minutes: float
    words: Sequence[str] = ()
    quick: Sequence[str] = ()
    data: bool = True
    needs: Callable[[], str] = field(default=lambda: "")
    folder: Path = BENCHMARKS

    def command(self, data: Path, out: Path, *, quick: bool) -> list[str]:
        script = self.folder / f"{self.name}.py"
        rows = ["--data", str(data)] if self.data else []
        words = self.quick if quick else self.words
        return [sys.executable, str(script), *rows, "--out", str(out), *words]

    def shown(self) -> str:
        """The command as one would type it."""
        return " ".join(["python", f"benchmarks/{self.name}.py", *(["--data", "DIR"] if self.data else [])])


def no_engine() -> str:
    """Why answers cannot be drawn by vLLM here."""
    places = [os.environ.get("VLLM_PYTHON", ""), str(ROOT / ".venv-vllm" / "bin" / "python")]
    return "" if any(place and Path(place).is_file() for place in places) else "no vLLM here: `make test-vllm` makes it"


def no_cuda() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


# In the order of what a reader asks first: what no longer fits into the time is left out from the end.
PARTS = (
    Part("sft", 9, ("--rows", "128", "--modes", "grouped", "packed"), ("--rows", "16", "--rounds", "1")),
    Part(
        "reward", 9, ("--rows", "128", "--k6-rows", "32", "--accuracy-rows", "0"),
        ("--rows", "16", "--k6-rows", "8", "--accuracy-rows", "0", "--rounds", "1"),
    ),
    Part("dpo", 5, ("--rows", "128"), ("--rows", "16", "--rounds", "1")),
    Part("ppo", 22, ("--parts", "b8", "b64", "reuse_b8", "memory"), ("--parts", "b8", "--rounds", "1")),
    Part("peers", 14, (), ("--rows", "16", "--rounds", "1")),
    Part("serve", 4, ("--rounds", "5"), ("--rounds", "1"), data=False),
    Part("start", 2, (), ("--rounds", "1"), data=False),
    Part("gpu", 6, (), (), data=False, needs=no_cuda),
    Part("rollout", 20, (), ("--rounds", "1", "--seeds", "1"), data=False, needs=no_engine),
    Part("scaling", 25, (), ("--quick",), data=False),
    Part("plan", 25, (), (), data=False),
    Part("ppo_learning", 150, (), (), data=False),
)  # fmt: skip
