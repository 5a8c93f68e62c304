"""One stage over a grid of settings: one run per point, each in a folder named by what it changes.

Every point is checked before the first starts. Finished runs are kept, so that a stopped sweep can be continued.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.artifacts.files import read_json, write_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.shipped import ROOT, SCRIPTS
from rlhf.config.stages import STAGES
from rlhf.errors import ConfigError, RlhfError
from rlhf.runs.record import JOB, RunRecord, status_of
from rlhf.runs.same_settings import require_same
from rlhf.train.run.readiness import require_parents
from rlhf.train.run.start import start_stage

LONGEST_NAME = 120  # characters; file systems take 255 bytes
FORM = "key=value,value, such as train.lr=1e-5,3e-5"


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep: its folder and every override that makes it."""

    folder: Path
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Checked points of one stage over one configuration file."""

    stage: str
    config: str
    points: tuple[Point, ...]

    def runs(self) -> list[RunRecord]:
        """What became of every point."""
        return [RunRecord(point.folder) for point in self.points]

    def run_local(self, *, ranks: int | None = None) -> None:
        """Runs the points one after another. A run that fails does not end the sweep; a run that is stopped does."""
        for number, point in enumerate(self.points, 1):
            folder = RunFolder(point.folder)
            sys.stderr.write(f"\n== {number}/{len(self.points)}  {point.folder.name} ==\n")
            if status_of(folder) == "finished":
                sys.stderr.write("already finished\n")
                continue
            start_stage(self.stage, self._words(point), ranks=ranks)
            if folder.status() == "preempted":
                sys.stderr.write("stopped; the same command continues the sweep\n")
                return

    def submit(self, options: Sequence[str]) -> None:
        """Queues a Slurm job for every point that is neither finished nor queued."""
        for point in self.points:
            folder = RunFolder(point.folder)
            if status_of(folder) == "finished":
                sys.stderr.write(f"{point.folder.name}: already finished\n")
            elif job := _active_job(folder):
                sys.stderr.write(f"{point.folder.name}: job {job} is queued or running\n")
            else:
                job = self._sbatch(point, options)
                point.folder.mkdir(parents=True, exist_ok=True)
                write_json(point.folder / JOB, {"job": job})
                sys.stderr.write(f"{point.folder.name}: job {job}\n")

    def _words(self, point: Point) -> list[str]:
        return ["--config", self.config, "--resume", "auto", *point.overrides]

    def _sbatch(self, point: Point, options: Sequence[str]) -> str:
        script = STAGES[self.stage].step
        command = ["sbatch", "--parsable", f"--job-name={point.folder.name}", *options]
        command += [str(SCRIPTS / "slurm" / "train.sbatch"), script, self.config, *point.overrides]
        done = _slurm([*command, "--resume", "auto"])
        if done.returncode:
            raise ConfigError(f"sbatch: {done.stderr.strip()}", where="--slurm", fix="look at --sbatch")
        return done.stdout.strip().partition(";")[0]


def plan_sweep(stage: str, config: str, grid: Sequence[str], common: Sequence[str], out: Path) -> Sweep:
    """The points of a grid, every one checked.

    Args:
        grid: `key=value,value` for each key that changes; the points are all combinations.
        common: overrides of every run.
        out: folder of the run folders.

    Raises: ConfigError for a key or value that is wrong; ArtifactError where a parent is not finished, or a folder
        holds a run with other settings.
    """
    axes = parse_grid(grid)
    names = _short_names(list(axes))
    points, problems = [], []
    for values in itertools.product(*axes.values()):
        changed = dict(zip(axes, values, strict=True))
        folder = out / _folder_name({names[key]: value for key, value in changed.items()})
        words = (*common, *(f"{key}={value}" for key, value in changed.items()), f"run.dir={folder}")
        try:
            settings = load_config(STAGES[stage].config, config, words)
            require_parents(settings)
            require_same(folder, settings)
            points.append(Point(folder, words))
        except RlhfError as error:
            problems.append(error)
    _raise_once(problems)
    return Sweep(stage, config, tuple(points))


def parse_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """`train.lr=1e-5,3e-5` as key and values; commas within brackets or quotes separate nothing.

    Raises: ConfigError for a word of another form, a key given twice, a value given twice, or run.dir.
    """
    axes: dict[str, list[str]] = {}
    for word in words:
        key, sign, text = word.partition("=")
        values = _split(text)
        where = f"--grid {word}"
        if not sign or not key or not all(values):
            raise ConfigError("not a key with values", where=where, expected=FORM)
        if key in axes:
            raise ConfigError(f"{key} is given twice", where=where, fix="put all its values into one --grid")
        if len(set(values)) < len(values):
            raise ConfigError("a value is given twice", where=where, fix="remove one of them")
        if key == "run.dir":
            raise ConfigError(
                "a sweep names the run folders itself", where=where, fix="remove it; --out is the folder of the runs"
            )
        axes[key] = values
    return axes


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += 0 if quote else (character in "[{") - (character in "]}")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, where no other key ends in it."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return {key: leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves, strict=True)}


def _folder_name(changed: dict[str, str]) -> str:
    """`lr=1e-5_epochs=2`; a hash tells values apart that a folder's name cannot hold."""
    plain = "_".join(f"{name}={value}" for name, value in changed.items())
    name = re.sub(r"[^\w.+=-]+", "-", plain)[:LONGEST_NAME]
    return name if name == plain else f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def _raise_once(problems: Sequence[RlhfError]) -> None:
    """Raises the problems together, each once: a bad common key is a problem of every point."""
    single = [part for error in problems for part in getattr(error, "problems", ()) or (error,)]
    texts = dict.fromkeys(error.render() for error in single)
    if len(texts) == 1:
        raise single[0]
    if texts:
        raise ConfigError(f"{len(texts)} problems, and nothing was started\n" + "\n".join(texts))


def _active_job(folder: RunFolder) -> str:
    """The number of the point's job while the controller still has it to run; else empty."""
    path = folder.path / JOB
    if not path.is_file():
        return ""
    job = str(read_json(path)["job"])
    found = _slurm(["squeue", "--noheader", f"--jobs={job}", "--format=%T"])
    return job if found.returncode == 0 and found.stdout.strip() else ""


def _slurm(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        environment = {**os.environ, "RLHF_ROOT": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{command[0]} is not in PATH", where="--slurm", fix="run it where Slurm is, or use --local"
        ) from error
