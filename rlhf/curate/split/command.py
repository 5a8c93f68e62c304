"""Data files divided into training, development and test files, and the record that later files are divided by.

`assignments.jsonl` in the folder holds every prompt that was ever divided there and its split. A later call reads
it, so that the files of all stages agree: what one stage is tested with, no stage is trained on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.flag_values import BAD_ROW, similarity
from rlhf.config.flags import flag
from rlhf.curate.output import Output, manifest_path, progress
from rlhf.curate.row_texts import RowTexts, normalised, numbered_texts
from rlhf.curate.split.assign import SPLITS, Assignment, RowPrompt, Shares, assign, check_shares
from rlhf.data.embedded import data_path
from rlhf.data.readers import locate, read_rows
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError

COMMAND = "data split"
ASSIGNMENTS = "assignments.jsonl"
EXAMPLES = 5


def parse_shares(text: str) -> dict[str, float]:
    """`train=0.9,dev=0.1` as a mapping."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r}; expected NAME=SHARE, as in train=0.9") from None
    return shares


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to divide; see `splits.assign`."""

    shares: Shares = flag(
        ..., "shares of train, dev and test, which sum to 1", metavar="NAME=SHARE,...", parse=parse_shares
    )
    seed: int = flag(17, "another seed gives another split")
    threshold: float = flag(
        0.5,
        "prompts whose TF-IDF of character 2-3-grams has a cosine of T or more stay together; 1 joins equal prompts "
        "only",
        metavar="T",
        parse=similarity,
    )
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    def named(self) -> dict[str, Any]:
        """For the manifests."""
        return {"shares": dict(self.shares), "seed": self.seed, "threshold": self.threshold}


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was done: an `Output` for each file written, and how the prompts fell."""

    outputs: list[Output]
    assignment: Assignment
    num_kept_assignments: int
    num_bad: int
    num_checked: int


def split_files(sources: Sequence[str], folder: Path, options: SplitOptions) -> SplitReport:
    """Writes `folder`/<stem>_{train,dev,test}.jsonl for every source, and the assignments.

    Raises: DataError for files, options or rows that cannot be used, before anything is written; and when a test or
        dev prompt turns out to be in a training file of the folder.
    """
    check_shares(options.shares)
    paths = _distinct([data_path(source) for source in sources])
    earlier = read_assignments(folder / ASSIGNMENTS)
    prompts = {path: _prompts(path, options.on_bad_row) for path in paths}
    good = [prompt for found in prompts.values() for prompt in found if prompt is not None]
    known = {text for prompt in good for text in prompt} & earlier.keys()
    assignment = assign(good, earlier, shares=options.shares, seed=options.seed, threshold=options.threshold)
    _write_assignments(folder / ASSIGNMENTS, paths, assignment, options)
    outputs = [output for path in paths for output in _divide(path, folder, prompts[path], assignment, options)]
    num_bad = sum(prompt is None for found in prompts.values() for prompt in found)
    return SplitReport(outputs, assignment, len(known), num_bad, check_apart(folder))


def _distinct(paths: list[str]) -> list[str]:
    stems = [Path(path).stem for path in paths]
    if repeated := [stem for stem, number in Counter(stems).items() if number > 1]:
        problem = f"two inputs are called {repeated[0]}: both would be written to {repeated[0]}_train.jsonl"
        raise DataError(problem, where="--in", fix="rename one of them")
    return paths


def _prompts(path: str, on_bad_row: str) -> list[RowPrompt | None]:
    """What decides where each row goes; None for a bad row."""
    rows = numbered_texts(read_rows(locate(path)), path, on_bad_row)
    found = [_row_prompt(texts) for _, texts in progress(rows, f"reading {Path(path).name}")]
    if not any(found):
        raise DataError("no usable row", where=path, expected="at least one")
    return found


def _row_prompt(texts: RowTexts | DataError) -> RowPrompt | None:
    if isinstance(texts, DataError):
        return None
    return RowPrompt(normalised(texts.asked), normalised(texts.prompt))


def read_assignments(path: Path) -> dict[str, str]:
    """Split of each prompt assigned before; none where there is no such file."""
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
                fix="mend the line, or delete the folder's files and split all data again",
            )
        found[row["prompt"]] = row["split"]
    return found


def _write_assignments(path: Path, inputs: Sequence[str], assignment: Assignment, options: SplitOptions) -> None:
    with Output(path, command=COMMAND, inputs=inputs, options=options.named()) as output:
        for prompt, split in assignment.splits.items():
            output.write({"prompt": prompt, "split": split})
        output.extra = {
            "clusters": assignment.num_clusters,
            "largest_cluster": assignment.largest,
            "conflicts": len(assignment.conflicts),
            "examples_of_conflicts": assignment.conflicts[:EXAMPLES],
        }


def _divide(
    path: str, folder: Path, prompts: Sequence[RowPrompt | None], assignment: Assignment, options: SplitOptions
) -> list[Output]:
    """Writes the rows of one source where their prompts go; the outputs."""
    used = {assignment.splits[prompt.asked] for prompt in prompts if prompt is not None}
    names = [name for name in SPLITS if name in used or options.shares.get(name, 0.0) > 0]
    with ExitStack() as stack:
        outputs = {name: stack.enter_context(_output(path, folder, name, options)) for name in names}
        for prompt, (_, row) in zip(prompts, read_rows(locate(path)), strict=True):
            if prompt is not None:
                assert not isinstance(row, DataError)
                outputs[assignment.splits[prompt.asked]].write(row)
    return list(outputs.values())


def _output(path: str, folder: Path, split: str, options: SplitOptions) -> Output:
    out = folder / f"{Path(path).stem}_{split}.jsonl"
    return Output(out, command=COMMAND, inputs=[path], options={**options.named(), "split": split})


def check_apart(folder: Path) -> int:
    """Reads every file that was divided in `folder` again; how many there are.

    Raises: DataError when a last user turn is in files of two splits, word for word but for whitespace.
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
                        f"a prompt of {where.name} too: {asked[:80]}",
                        where=str(path),
                        expected="every prompt in files of one split",
                        fix="a file or the assignments were changed: empty the folder and split all data again",
                    )
    return num_files


def _divided_here(path: Path) -> bool:
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("command") == COMMAND
