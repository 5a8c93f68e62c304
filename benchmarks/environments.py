"""The other sides' environments, each made once with what its makers ask for; nothing of this project is in them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT, say

HOME = Path.home() / ".cache" / "rlhf" / "benchmarks"
CONSTRAINTS = ROOT / "constraints" / "cpu.txt"
REPORTED = (
    "trl", "llamafactory", "ms-swift", "torch", "transformers", "accelerate", "datasets", "deepspeed", "peft"
)  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """A package with what it brings, in `HOME`.

    pinned: whether every version is that of constraints/cpu.txt. Packages with narrower demands of their own take
    torch alone from there. beside: further packages that the side uses. without: packages that are removed again,
    because their builds on the package index need CUDA beside that torch; no side here uses images or sound.
    """

    requirement: str
    pinned: bool = True
    beside: Sequence[str] = ()
    without: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        return HOME / self.requirement.replace("=", "").replace("<", "").replace(">", "")

    def python(self) -> Path:
        """The interpreter; makes the environment if it is not there.

        Raises: subprocess.CalledProcessError where a package cannot be installed.
        """
        python = self.folder / "bin" / "python"
        if not (self.folder / ".installed").is_file():
            say(f"making an environment for {self.requirement} in {self.folder} (some minutes)")
            base = getattr(sys, "_base_executable", sys.executable)
            subprocess.run([base, "-m", "venv", str(self.folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet"]
            limits = ["--constraint", str(CONSTRAINTS)] if self.pinned else []
            torch = "torch" if self.pinned else pinned("torch")
            # torch first: an open range may fetch gigabytes of CUDA packages that a CPU does not need.
            subprocess.run([*install, *limits, torch], check=True)
            also = [] if self.pinned else [torch]
            subprocess.run([*install, *limits, *also, self.requirement, *self.beside], check=True)
            if self.without:
                subprocess.run([*install[:3], "uninstall", "--quiet", "--yes", *self.without], check=True)
            (self.folder / ".installed").touch()
        return python


TRL = Environment("trl")  # the newest that installs beside the pinned torch and transformers
TRL_PPO = Environment("trl==1.12.0")  # the last release with a PPO trainer
NO_MEDIA = ("torchvision", "torchaudio")
LLAMA_FACTORY = Environment("llamafactory==0.9.5", pinned=False, beside=("deepspeed",), without=NO_MEDIA)
SWIFT = Environment("ms-swift==4.6.0", pinned=False, beside=("deepspeed",), without=NO_MEDIA)


def pinned(package: str) -> str:
    """The requirement of a package in constraints/cpu.txt."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{package}=="))


def versions(python: Path) -> dict[str, str]:
    """Versions of the packages that an environment has, of those that decide its speed."""
    code = (
        "import json, importlib.metadata as m\n"
        "there = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        f"print(json.dumps({{n: there[n] for n in {REPORTED!r} if n in there}}))"
    )
    found: dict[str, str] = json.loads(subprocess.check_output([str(python), "-c", code], text=True))
    return found
