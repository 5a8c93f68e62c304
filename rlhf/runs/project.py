"""Several runs as one project: which run started from which, on what data, and the comparisons of their models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rlhf.artifacts.files import read_json
from rlhf.errors import ArtifactError, RlhfError
from rlhf.runs.listing import DEPTH, find_runs
from rlhf.runs.record import Row, RunRecord, read_lines, read_run

STAGE_ORDER = ("sft", "reward", "dpo", "ppo")  # the headline is about the last
COMPARISON = "compare.json"
EXPORTED = ("model", "adapter")  # folders of a run that a later stage may name as its parent
NO_COMPARISON_IN = (*EXPORTED, "checkpoints", "tensorboard")


class ComparisonFolder(NamedTuple):
    """What `rlhf evaluate compare` left in a folder; `answers` are the rows of its answers.jsonl, if still there."""

    path: Path
    report: Row
    answers: list[Row]


class Parent(NamedTuple):
    """A model that a run started from. `stage` is empty for one not made by this project, `run` None for one that is
    not among the runs read."""

    roles: tuple[str, ...]
    path: str
    sha256: str
    stage: str
    run: RunRecord | None

    @property
    def name(self) -> str:
        """The run folder's name; of a hub id the part after the slash."""
        return run_folder_of(self.path).name or self.path


class Use(NamedTuple):
    """A data source as one run read it; `report` is its entry in the manifest."""

    run: RunRecord
    report: Row


@dataclass(frozen=True, slots=True)
class Project:
    """runs: by stage, then as found. unread: folders that could not be read, and why."""

    folders: list[Path]
    runs: list[RunRecord]
    comparisons: list[ComparisonFolder]
    unread: list[tuple[Path, str]]

    def of_stage(self, stage: str) -> list[RunRecord]:
        return [run for run in self.runs if run.stage == stage]


def read_project(folders: Sequence[Path]) -> Project:
    """Reads every run and comparison among and below `folders`. A run that cannot be read is named in `unread`.

    Raises: ArtifactError for a folder that does not exist, and where no run can be read.
    """
    runs: list[RunRecord] = []
    unread: list[tuple[Path, str]] = []
    for path in find_runs(folders):
        try:
            runs.append(read_run(path))
        except (RlhfError, ValueError, OSError) as error:
            unread.append((path, str(error).split("\n")[0]))
    if not runs:
        reasons = "; ".join(reason for _, reason in unread)
        raise ArtifactError(
            f"no run in {', '.join(map(str, folders))}{f': {reasons}' if reasons else ''}",
            expected="run folders, or a folder that holds some",
            fix="list what a folder holds: rlhf runs FOLDER",
        )
    comparisons = []
    for path in dict.fromkeys(path for folder in folders for path in _comparisons_below(folder, DEPTH)):
        try:
            comparisons.append(_read_comparison(path))
        except (ValueError, KeyError, TypeError, OSError) as error:
            unread.append((path / COMPARISON, f"not a report of `rlhf evaluate compare`: {error}"))
    return Project(list(folders), sorted(runs, key=lambda run: STAGE_ORDER.index(run.stage)), comparisons, unread)


def _comparisons_below(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / COMPARISON).is_file():
        yield folder
    elif depth:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith(".") and path.name not in NO_COMPARISON_IN:
                yield from _comparisons_below(path, depth - 1)


def _read_comparison(folder: Path) -> ComparisonFolder:
    """Raises: ValueError, KeyError or TypeError for a file that is something else."""
    report = read_json(folder / COMPARISON)
    for language in ("ko", "en"):
        str(report["sentence"][language])
    for name in ("first", "second", "outcome", "views", "models"):
        report[name]
    return ComparisonFolder(folder, report, read_lines(folder / "answers.jsonl"))


def parents_of(record: RunRecord, runs: Sequence[RunRecord]) -> list[Parent]:
    """The models a run started from, the roles that one of them fills together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    entries: dict[tuple[str, str], Row] = {}
    for role, entry in record.manifest.get("parents", {}).items():
        key = str(entry["path"]), str(entry.get("sha256", ""))
        grouped.setdefault(key, []).append(role)
        entries[key] = entry
    return [
        Parent(tuple(roles), *key, str(entries[key].get("stage", "")), made_by(entries[key], record, runs))
        for key, roles in grouped.items()
    ]


def made_by(entry: Row, child: RunRecord, runs: Sequence[RunRecord]) -> RunRecord | None:
    """The run that made a parent: that of its path; or, where the folders were moved since, the one run of its stage,
    folder name and training data. None where there is none, or more than one."""
    others = [run for run in runs if run is not child and run.stage == entry.get("stage")]
    folder = run_folder_of(entry["path"])
    same_path = [run for run in others if run.path.resolve() == folder.resolve()]
    alike = [
        run
        for run in others
        if run.path.name == folder.name and run.manifest.get("data") == entry.get("data", run.manifest.get("data"))
    ]
    found = same_path or alike
    return found[0] if len(found) == 1 else None


def run_folder_of(model: str) -> Path:
    """`runs/a` of `runs/a/model`; any other path as it is."""
    path = Path(model)
    return path.parent if path.name in EXPORTED else path


def replaced_parents(runs: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Paths that runs started from with more than one hash: the model there was replaced in between."""
    seen: dict[str, dict[str, None]] = {}
    for run in runs:
        for path, digest in _lineage(run.manifest.get("parents", {})):
            seen.setdefault(path, {})[digest] = None
    return {path: list(hashes) for path, hashes in seen.items() if len(hashes) > 1}


def _lineage(parents: Row) -> Iterator[tuple[str, str]]:
    """(path, hash) of parents, their parents, and so on."""
    for entry in parents.values():
        if entry.get("sha256"):
            yield str(entry["path"]), str(entry["sha256"])
        yield from _lineage(entry.get("parents", {}))


def sources_of(runs: Sequence[RunRecord]) -> list[list[Use]]:
    """Uses of each data source, by its content: files with the same hash are one source."""
    found: dict[str, list[Use]] = {}
    for run in runs:
        for report in run.manifest.get("data", []):
            found.setdefault(str(report.get("sha256") or report.get("path", "")), []).append(Use(run, report))
    return list(found.values())


def trained_and_held_out(uses: Sequence[Use]) -> bool:
    """Whether one source was both trained on and measured on, by any of the runs."""
    held_out = [str(use.report.get("role", "")).startswith("eval") for use in uses]
    return any(held_out) and not all(held_out)


def starting_point(record: RunRecord, project: Project) -> RunRecord | None:
    """The stage-1 run that a run of PPO or DPO started from; the only one where the manifest names none of those
    read."""
    role = "base" if record.stage == "dpo" else "actor"
    for parent in parents_of(record, project.runs):
        if role in parent.roles and parent.run is not None:
            return parent.run
    first = project.of_stage("sft")
    return first[0] if len(first) == 1 and role not in record.manifest.get("parents", {}) else None
