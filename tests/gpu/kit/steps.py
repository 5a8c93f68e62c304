"""The steps of run.sh, in order of worth, each in processes of its own and with a time limit of its own.

python steps.py [STEP ...] [--seconds 810] [--device cuda|cpu] [--tiny]

Writes into $OUT: summary.txt, doctor.json, points.xml (JUnit, with the recorded figures), points.log, benchmark.json,
benchmark.md, benchmark.log. Every file is written after each step, so that what ends this process leaves what is done.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import psutil

SOURCE = Path(__file__).resolve().parents[3]
TOTAL_S = 810.0  # under 14 minutes
GRACE_S = 4.0  # for a step that is ended to write its report, before and after its children are killed
LEAST_S = 10.0  # a step with less time left is not started
# Steps and their limits in seconds. A point is a file of tests/gpu; the benchmark measures what the point `speed` does.
LIMITS = {
    "doctor": 120.0,
    "attention": 75.0,
    "steps": 140.0,  # its walk on a CPU builds an op of DeepSpeed first
    "ranks": 60.0,
    "decoding_graphs": 75.0,
    "head": 60.0,
    "memory": 75.0,
    "offload": 150.0,
    "benchmark": 330.0,
    "stages": 200.0,
    "speed": 120.0,
}


@dataclass
class Kit:
    """A run of the kit: where it computes and writes, when it must end, and what its steps came to."""

    out: Path
    device: str
    tiny: bool
    end: float
    lines: list[str] = field(default_factory=list)
    failed: bool = False

    def run(self, step: str, act: Callable[[float], str]) -> None:
        """Runs a step unless no time is left; `act` gets its limit in seconds and returns how it ended."""
        limit = min(LIMITS[step], self.end - time.monotonic())
        if limit < LEAST_S:
            self._note(step, "not started: no time is left", 0.0)
            self.failed = True
            return
        started = time.monotonic()
        outcome = act(limit)
        self.failed |= outcome != "passed"
        self._note(step, outcome, time.monotonic() - started)

    def doctor(self, limit: float) -> str:
        command = [sys.executable, "-m", "rlhf", "doctor", "--json"]
        with (self.out / "doctor.json").open("wb") as said, (self.out / "points.log").open("ab") as log:
            return ended(command, limit, said, log)

    def benchmark(self, limit: float) -> str:
        command = [sys.executable, "benchmarks/gpu.py", "--out", str(self.out / "benchmark.json")]
        command += ["--device", self.device, *(["--tiny"] if self.tiny else [])]
        with (self.out / "benchmark.log").open("ab") as log:
            return ended(command, limit, log, log)

    def point(self, step: str, limit: float) -> str:
        report = self.out / f".{step}.xml"
        command = [sys.executable, "-m", "pytest", f"tests/gpu/test_{step}.py", "-m", "gpu", f"--junitxml={report}"]
        command += [
            "-o",
            "junit_family=xunit1",
            "-p",
            "no:cacheprovider",
            f"--device={self.device}",
            *(["--tiny"] if self.tiny else []),
        ]
        with (self.out / "points.log").open("ab") as log:
            outcome = ended(command, limit, log, log)
        add_report(report, self.out / "points.xml")
        return outcome

    def _note(self, step: str, outcome: str, seconds: float) -> None:
        self.lines.append(f"{step:10} {seconds:6.1f} s  {outcome}")
        print(self.lines[-1])
        (self.out / "summary.txt").write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def ended(command: Sequence[str], limit: float, said: object, log: object) -> str:
    """How a command ended: `passed`, its status, or that it and its children were killed at the limit."""
    process = subprocess.Popen(command, cwd=SOURCE, stdout=said, stderr=log, start_new_session=True)  # type: ignore[call-overload]
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        end_all(process)
        return f"no end after {limit:.0f} s"
    return "passed" if status == 0 else f"failed with status {status}"


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a process, so that pytest writes its report, and kills what is left of it and of its children.

    Workers and launchers are in sessions of their own, so the process group alone does not reach them.
    """
    family = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    for each in [*descendants(process.pid), *family]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    with suppress(subprocess.TimeoutExpired):  # a thread that waited for one of them has ended
        process.wait(GRACE_S)
    process.kill()
    process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def add_report(report: Path, whole: Path) -> None:
    """Moves the suites of one JUnit report into another."""
    if not report.is_file():
        return
    suites = ElementTree.parse(whole).getroot() if whole.is_file() else ElementTree.Element("testsuites")
    suites.extend(ElementTree.parse(report).getroot())
    ElementTree.ElementTree(suites).write(whole, encoding="utf-8", xml_declaration=True)
    report.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description="the GPU kit, step by step")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(LIMITS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="limit of all steps (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, which try the kit itself")
    options = parser.parse_args()
    if unknown := [step for step in options.steps if step not in LIMITS]:
        parser.error(f"no such step: {', '.join(unknown)}")
    out = Path(os.environ.get("OUT", "out")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("points.xml", "points.log", "benchmark.log"):
        (out / name).unlink(missing_ok=True)
    kit = Kit(out, options.device, options.tiny, time.monotonic() + options.seconds)
    whole = {"doctor": kit.doctor, "benchmark": kit.benchmark}
    for step in options.steps or LIMITS:
        kit.run(step, whole.get(step) or partial(kit.point, step))
    return 1 if kit.failed else 0


if __name__ == "__main__":
    sys.exit(main())
