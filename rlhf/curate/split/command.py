"""`rlhf data split`: divides data files into training, development and test files.

`assignments.jsonl` in the folder holds every prompt that was ever divided there and its split. Later calls read it,
so that the files of all stages agree: no stage is trained on what another stage is tested with.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.flag_values import BAD_ROW, parse_similarity
from rlhf.config.flags import flag
from rlhf.curate.output import Output, manifest_path, progress
from rlhf.curate.row_texts import normalised, numbered_texts
from rlhf.curate.split.assign import SPLITS, Assignment, RowPrompt, Shares, assign, check_shares
from rlhf.data.embedded import data_path
from rlhf.data.readers import locate, read_rows
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError
from rlhf.html.templates import render

COMMAND = "data split"
ASSIGNMENTS = "assignments.jsonl"
EXAMPLES = 5
LARGE = 0.05  # share of the prompts in one cluster from which the shares cannot be met well


def parse_shares(text: str) -> dict[str, float]:
    """NAME=SHARE,... as a mapping."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            raise ArgumentTypeError(f"{part!r}; expected NAME=SHARE, as in train=0.9") from None
    return shares


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """What is divided, and how; see `assign`."""

    sources: tuple[str, ...] = flag(..., "JSONL, JSON, CSV or demo:NAME", name="--in", metavar="FILE", nargs="+")
    out_dir: Path = flag(..., "folder for the files and the assignments", metavar="DIR")
    shares: Shares = flag(
        {"train": 0.9, "dev": 0.05, "test": 0.05},
        "shares of train, dev and test; they sum to 1 (default: train=0.9,dev=0.05,test=0.05)",
        metavar="NAME=SHARE,...",
        parse=parse_shares,
    )
    seed: int = flag(17, "another seed gives another split")
    threshold: float = flag(
        0.5,
        "prompts whose TF-IDF of character 2-3-grams has a cosine of at least T stay together; 1 takes equal prompts "
        "only",
        metavar="T",
        parse=parse_similarity,
    )
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    def recorded(self) -> dict[str, Any]:
        """The options that decide the split, for the manifests."""
        return {"shares": dict(self.shares), "seed": self.seed, "threshold": self.threshold}


@dataclass(frozen=True, slots=True)
class SplitReport:
    """An `Output` for each file written, the assignment of the prompts, and counts."""

    outputs: list[Output]
    assignment: Assignment
    num_kept_assignments: int
    num_bad: int
    num_checked: int


def run(options: SplitOptions) -> int:
    """Divides the files and prints how the prompts were assigned."""
    sys.stdout.write(render("curate/split/report.txt.j2", report=split_files(options), large=LARGE))
    return 0


def split_files(options: SplitOptions) -> SplitReport:
    """Writes <out_dir>/<stem>_{train,dev,test}.jsonl for every source, and the assignments.

    Raises: DataError for files, options or rows that cannot be used, before anything is written; and when a test or
        dev prompt turns out to be in a training file of the folder.
    """
    check_shares(options.shares)
    folder = options.out_dir
    paths = _distinct([data_path(source) for source in options.sources])
    earlier = read_assignments(folder / ASSIGNMENTS)
    prompts = {path: _prompts(path, options.on_bad_row) for path in paths}
    good = [prompt for found in prompts.values() for prompt in found if prompt is not None]
    known = {text for prompt in good for text in prompt} & earlier.keys()
    assignment = assign(good, earlier, shares=options.shares, seed=options.seed, threshold=options.threshold)
    _write_assignments(folder / ASSIGNMENTS, paths, assignment, options)
    outputs = [output for path in paths for output in _divided(path, prompts[path], assignment, options)]
    num_bad = sum(prompt is None for found in prompts.values() for prompt in found)
    return SplitReport(outputs, assignment, len(known), num_bad, check_apart(folder))


def _distinct(paths: list[str]) -> list[str]:
    stems = [Path(path).stem for path in paths]
    if repeated := [stem for stem, number in Counter(stems).items() if number > 1]:
        problem = f"two inputs are called {repeated[0]}: both would be written to {repeated[0]}_train.jsonl"
        raise DataError(problem, where="--in", fix="rename one of them")
    return paths


def _prompts(path: str, on_bad_row: str) -> list[RowPrompt | None]:
    """The texts that decide the split of each row; None for a bad row."""
    rows = numbered_texts(read_rows(locate(path)), path, on_bad_row)
    found = [
        None if isinstance(texts, DataError) else RowPrompt(normalised(texts.asked), normalised(texts.prompt))
        for _, texts in progress(rows, f"reading {Path(path).name}")
    ]
    if not any(found):
        raise DataError("no usable row", where=path, expected="at least one")
    return found


def read_assignments(path: Path) -> dict[str, str]:
    """Split of each prompt assigned before; empty where there is no such file."""
    if not path.exists():
        return {}
    found: dict[str, str] = {}
    for line, row in read_rows(locate(str(path))):
        good = not isinstance(row, DataError) and isinstance(row.get("prompt"), str) and row.get("split") in SPLITS
        if isinstance(row, DataError) or not good:
            raise DataError(
                "not an assignment",
                where=f"{path}:{line}",
                expected='{"prompt": "...", "split": "train", "dev" or "test"}',
                fix="correct the line, or delete the folder's files and split all data again",
            )
        found[row["prompt"]] = row["split"]
    return found


def _write_assignments(path: Path, inputs: Sequence[str], assignment: Assignment, options: SplitOptions) -> None:
    with Output(path, command=COMMAND, inputs=inputs, options=options.recorded()) as output:
        for prompt, split in assignment.splits.items():
            output.write({"prompt": prompt, "split": split})
        output.extra = {
            "clusters": assignment.num_clusters,
            "largest_cluster": assignment.largest,
            "conflicts": len(assignment.conflicts),
            "examples_of_conflicts": assignment.conflicts[:EXAMPLES],
        }


def _divided(
    path: str, prompts: Sequence[RowPrompt | None], assignment: Assignment, options: SplitOptions
) -> list[Output]:
    """Writes the rows of one source into the files of their splits."""
    used = {assignment.splits[prompt.asked] for prompt in prompts if prompt is not None}
    names = [name for name in SPLITS if name in used or options.shares.get(name, 0.0) > 0]
    with ExitStack() as stack:
        outputs: dict[str, Output] = {}
        for name in names:
            out, recorded = options.out_dir / f"{Path(path).stem}_{name}.jsonl", {**options.recorded(), "split": name}
            outputs[name] = stack.enter_context(Output(out, command=COMMAND, inputs=[path], options=recorded))
        for prompt, (_, row) in zip(prompts, read_rows(locate(path)), strict=True):
            if prompt is not None:
                assert not isinstance(row, DataError)
                outputs[assignment.splits[prompt.asked]].write(row)
    return list(outputs.values())


def check_apart(folder: Path) -> int:
    """Reads again every file that was divided into `folder`; returns how many there are.

    Raises: DataError when files of two splits share a last user turn, whitespace apart.
    """
    seen: dict[str, tuple[str, Path]] = {}
    num_files = 0
    for split in SPLITS:
        for path in sorted(folder.glob(f"*_{split}.jsonl")):
            if not _divided_here(path):
                continue
            num_files += 1
            for _, texts in numbered_texts(read_rows(locate(str(path))), str(path), "error"):
                assert not isinstance(texts, DataError)
                asked = normalised(texts.asked)
                other, where = seen.setdefault(asked, (split, path))
                if other != split:
                    raise DataError(
                        f"a prompt that is also in {where.name}: {asked[:80]}",
                        where=str(path),
                        expected="each prompt in files of one split only",
                        fix="a file or the assignments were changed: empty the folder and split all data again",
                    )
    return num_files


def _divided_here(path: Path) -> bool:
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("command") == COMMAND
