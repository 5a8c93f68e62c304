"""What the comparisons share: processes with the same conditions, rounds and medians.

Both sides of a round run one after the other under the same thread settings, in an order that turns from round to
round; a ratio is the median over rounds of the ratio within a round, so that a slow minute hits both sides. The state
of the machine before and after each side is kept with its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from machine import watched

ROOT = Path(__file__).resolve().parents[1]
SIDES = Path(__file__).resolve().parent / "sides"
# libgomp's default is to spin while it waits, which on a shared machine slows a step down up to ten times: both sides
# are spared that.
CONDITIONS = {"GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags every comparison has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with {sft,preference,ranking}_train.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--rounds", type=int, default=5, help="times each side runs (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="scratch folder (default: beside --out, removed at the end)")
    return parser


def scratch(options: argparse.Namespace) -> Path:
    """The folder of --work, or one beside --out; made where it is not there."""
    work: Path = (options.work or options.out.with_suffix(".work")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    return work


def drop_scratch(options: argparse.Namespace, work: Path) -> None:
    """Removes the folder of `scratch`, unless --work named it."""
    if options.work is None:
        shutil.rmtree(work)


def run(command: Sequence[str], log: Path) -> float:
    """Runs a side to its end and returns its wall-clock seconds; its output goes to `log`."""
    started = time.perf_counter()
    with log.open("ab") as file:
        done = subprocess.run(
            list(command), env=os.environ | CONDITIONS, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-4000:])
        raise SystemExit(f"a side ended with status {done.returncode}; see {log}")
    return time.perf_counter() - started


def deepspeed(script: Path, *words: str) -> list[str]:
    """The launch line of a script of this project on one rank."""
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "1"]
    return [*launcher, "--master_port", str(free_port()), str(script), *words]


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Side:
    """One contestant: `measure(round)` returns its figures of one round."""

    name: str
    measure: Callable[[int], dict[str, Any]]


def alternate(sides: Sequence[Side], rounds: int) -> list[dict[str, dict[str, Any]]]:
    """Every side once a round, in an order that turns by one each round."""
    found = []
    for number in range(rounds):
        turn = number % len(sides)
        order = [*sides[turn:], *sides[:turn]]
        one = {side.name: watched(partial(side.measure, number)) for side in order}
        found.append({side.name: one[side.name] for side in sides})
        line = "  ".join(f"{name} {_headline(figures)}" for name, figures in found[-1].items())
        say(f"round {number + 1}/{rounds}: {line}")
    return found


def _headline(figures: dict[str, Any]) -> str:
    name = next(iter(figures))
    return f"{figures[name]:.4g} {name}"


def ratio(rounds: Sequence[dict[str, dict[str, Any]]], ours: str, theirs: str, figure: str) -> float:
    """Median over rounds of ours / theirs."""
    return statistics.median(each[ours][figure] / each[theirs][figure] for each in rounds)


def fastest(rounds: Sequence[dict[str, dict[str, Any]]], sides: Sequence[str], figure: str) -> str:
    """The side with the highest median."""
    return max(sides, key=lambda side: statistics.median(each[side][figure] for each in rounds))


def memory_mib(python: Sequence[str], result: Path, log: Path) -> float:
    """Peak resident memory above the imports of a side that writes it to `result`."""
    run(python, log)
    return float(json.loads(result.read_text())["peak_mib"])


def write(path: Path, content: dict[str, Any]) -> None:
    """The result as JSON, and its top-level numbers on the screen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for name, value in content.items():
        if isinstance(value, int | float):
            print(f"{name:24} {value:.3f}")
    print(f"written to {path}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
