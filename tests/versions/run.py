"""The oldest and the newest set of versions that pyproject.toml allows: unit tests, and a step of each stage.

    python tests/versions/run.py [oldest|newest ...] [--keep]

Each set has an environment of its own in .venv-versions, with all extras but
`vllm` and `gpu`, whose packages need a GPU (bitsandbytes is in `dev`); the other packages are the newest
that the set admits. The oldest set is every floor at once, so a floor that does not exist, or that another floor
excludes, fails too. torch is a CPU build: the first, or the last, that the package index offers within the range. An
index that has all of them, given in PIP_EXTRA_INDEX_URL, makes it the floor itself; the table says which one ran.
Exits with 1 where anything failed. Logs stay in .venv-versions; the environments are removed unless --keep is given.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-versions"
EXTRAS = ("llm", "serve", "ui", "eval", "pii", "report", "dev")
NEWEST_NAMED = ("transformers", "deepspeed", "peft", "datasets", "fastapi")  # shown in the table
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?\s*(>=\s*(?P<floor>[\w.]+))?(?P<rest>.*)")


@dataclass
class Part:
    """What was done with a set: installing it, its tests, its stages."""

    name: str
    passed: bool
    seconds: float
    said: str


@dataclass
class VersionSet:
    """One set, its environment and what came of it."""

    name: str
    parts: list[Part] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return FOLDER / self.name / "bin" / "python"

    def run(self, part: str, command: Sequence[str], read: Callable[[str], str]) -> bool:
        """Runs a command into a log; `read` takes from the log what the table says of it."""
        log = FOLDER / f"{self.name}-{part.replace(' ', '-')}.log"
        print(f"{self.name}: {part} (log: {log.relative_to(ROOT)})", flush=True)
        paths = {
            "PATH": os.pathsep.join([str(self.python.parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
        }
        started = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                [str(self.python), *command],
                cwd=ROOT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **paths},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        said = read(log.read_text(encoding="utf-8", errors="replace"))
        self.parts.append(Part(part, done.returncode == 0, time.monotonic() - started, said))
        return done.returncode == 0


def requirements(project: Path = ROOT / "pyproject.toml") -> dict[str, str | None]:
    """The floor of every direct requirement, by name; None for one without a floor.

    Raises: ValueError for a requirement this script cannot read.
    """
    read = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    found: dict[str, str | None] = {}
    for line in [*read["dependencies"], *(each for extra in EXTRAS for each in read["optional-dependencies"][extra])]:
        match = _REQUIREMENT.fullmatch(line)
        if match is None:
            raise ValueError(f"{project}: cannot read the requirement {line!r}")
        if match["name"] == read["name"]:
            continue
        known = found.setdefault(match["name"], match["floor"])
        if known != match["floor"]:
            raise ValueError(f"{project}: {match['name']} has the floors {known} and {match['floor']}")
    return found


def release(version: str) -> tuple[int, ...]:
    """2.13.0+cpu as (2, 13, 0)."""
    return tuple(int(part) for part in version.partition("+")[0].split(".") if part.isdecimal())


def choose_torch(offered: Sequence[str], floor: str, *, oldest: bool) -> str:
    """The CPU build to install: the first that is not below the floor, or the last.

    Raises: SystemExit where the index offers none.
    """
    builds = sorted(
        (each for each in offered if each.endswith("+cpu") and release(each) >= release(floor)), key=release
    )
    if not builds:
        raise SystemExit(f"no CPU build of torch from {floor} on: name an index that has one in PIP_EXTRA_INDEX_URL")
    return builds[0 if oldest else -1]


def offered_torch(python: Path) -> list[str]:
    """What pip could install as torch."""
    words = [str(python), "-m", "pip", "index", "versions", "torch"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return re.findall(r"[\d.]+(?:\+\w+)?", said.partition("Available versions:")[2].partition("\n")[0])


def pins(name: str, torch: str) -> list[str]:
    """The direct requirements of a set, as words for pip."""
    floors = requirements() | {"torch": torch.partition("+")[0]}
    if name == "newest":
        return [f"torch=={torch}"]
    exact = {each: floor for each, floor in floors.items() if floor is not None and each != "torch"}
    return [f"torch=={torch}", *(f"{each}=={floor}" for each, floor in exact.items())]


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip("= ") if lines else ""


def installed(text: str) -> dict[str, str]:
    """Packages and versions from `pip list --format=freeze`."""
    return dict(line.split("==", 1) for line in text.splitlines() if "==" in line)


def check(version_set: VersionSet) -> None:
    """Installs a set, runs its tests and its stages; what failed is in `parts`."""
    environment = FOLDER / version_set.name
    venv.create(environment, clear=True, with_pip=True)
    version_set.run("pip", ["-m", "pip", "install", "--quiet", "--upgrade", "pip"], last_line)
    floor = requirements()["torch"] or "0"
    torch = choose_torch(offered_torch(version_set.python), floor, oldest=version_set.name == "oldest")
    constraints = FOLDER / f"{version_set.name}.txt"
    constraints.write_text("\n".join(pins(version_set.name, torch)) + "\n", encoding="utf-8")
    project = f".[{','.join(EXTRAS)}]"
    words = ["-m", "pip", "install", "--constraint", str(constraints), "--editable", project]
    if not version_set.run("install", words, last_line):
        return
    freeze = [str(version_set.python), "-m", "pip", "list", "--format=freeze"]
    version_set.versions = installed(subprocess.run(freeze, capture_output=True, text=True, check=True).stdout)
    version_set.run("unit tests", ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit"], last_line)
    out = FOLDER / f"{version_set.name}-run"
    shutil.rmtree(out, ignore_errors=True)
    words = ["-m", "rlhf", "quickstart", "--max-steps", "1", "--out", str(out)]
    version_set.run("a step of each stage", words, lambda text: "" if "Error" not in text else last_line(text))
    shutil.rmtree(out, ignore_errors=True)


def table(sets: Sequence[VersionSet]) -> str:
    """What was run, a line a part."""
    lines = ["| set | versions | part | result | seconds |", "|---|---|---|---|---|"]
    for each in sets:
        named = ", ".join(f"{name} {each.versions[name]}" for name in ("torch", *NEWEST_NAMED) if name in each.versions)
        lines += [
            f"| {each.name} | {named} | {part.name} | {'passed' if part.passed else 'FAILED'}"
            f"{': ' + part.said if part.said else ''} | {part.seconds:.0f} |"
            for part in each.parts
        ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help="oldest, newest (default: both)")
    parser.add_argument("--keep", action="store_true", help="leave the environments in .venv-versions")
    given = parser.parse_args()
    names = given.sets or ["oldest", "newest"]
    if unknown := [name for name in names if name not in ("oldest", "newest")]:
        parser.error(f"no set {unknown[0]!r}: oldest or newest")
    FOLDER.mkdir(exist_ok=True)
    sets = [VersionSet(name) for name in names]
    for each in sets:
        check(each)
        if not given.keep:
            shutil.rmtree(FOLDER / each.name, ignore_errors=True)
    print(f"\n{table(sets)}")
    return 0 if all(part.passed for each in sets for part in each.parts) else 1


if __name__ == "__main__":
    sys.exit(main())
