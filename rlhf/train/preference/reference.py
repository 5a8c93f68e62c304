"""Log-probabilities of the answers under the model that a run starts from: computed once, kept in the run folder.

The weights of a run are those of its reference until a checkpoint is restored, so that no second model is loaded. With
LoRA the reference is the base, because a new adapter adds nothing yet; with model.adapter it is that adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from rlhf.artifacts.files import read_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.schema import DpoConfig
from rlhf.data.packing import Tree, pack_answers
from rlhf.engine.rows import RowModel
from rlhf.errors import ArtifactError, CheckpointError
from rlhf.ops.preference import answer_logprobs
from rlhf.train.run.run import Run
from rlhf.train.run.sharing import read_shared

Trees = Sequence[Tree]
Logprobs = list[tuple[float, ...]]  # by tree, of each of its answers


def tree_logprobs(model: RowModel, trees: Trees, micro_tokens: int) -> Logprobs:
    """Log-probabilities of each tree's answers in nats, in order, on every rank."""
    lengths = [len(prompt) + sum(map(len, answers)) for prompt, answers in trees]

    def read(items: list[int]) -> Iterator[tuple[float, ...]]:
        row = pack_answers([trees[item] for item in items]).to(model.ranks.device)
        found = model.infer_logprobs(row, 1.0).logprobs
        counts = [len(trees[item][1]) for item in items]
        flat = iter(answer_logprobs(found, row.items.clamp(min=0), sum(counts) or 1).tolist())
        return (tuple(next(flat) for _ in range(count)) for count in counts or [1])

    return read_shared(lengths, micro_tokens, model.ranks, read)


def reference_logprobs(run: Run[DpoConfig], model: RowModel, groups: Mapping[str, Trees]) -> dict[str, Logprobs]:
    """Log-probabilities of every group of trees under the reference, which `model` must be at this moment.

    They are read from the run folder, or from dpo.reference_from, where they were computed for the same model and
    tokens; otherwise they are computed and written.

    Raises: ArtifactError when dpo.reference_from holds none or others; CheckpointError when a run that goes on finds
        those of another model or data in its own folder.
    """
    key = run.on_main(lambda: reference_key(run, groups))
    given, own = run.config.dpo.reference_from, run.folder.reference_logprobs
    file = RunFolder(given).reference_logprobs if given else own
    known = run.on_main(lambda: _known_key(file))
    if given and known != key:
        raise _refused(given, known)
    if known == key:
        run.say(f"reference: log-probabilities read from {file}")
        return _split(run.on_main(lambda: load_file(file)), groups)
    if known is not None and run.resumed is not None:
        raise CheckpointError(
            f"{file} holds the reference log-probabilities of another model or other data",
            expected="those that the run was started with",
            fix="put the data and the model back, or start anew in another run.dir",
        )
    answers = sum(len(each) for trees in groups.values() for _, each in trees)
    run.say(f"reference: log-probabilities of {answers:,} answers, computed once ...")
    found = {name: tree_logprobs(model, trees, run.config.train.micro_tokens) for name, trees in groups.items()}
    run.on_main(lambda: _write(own, found, key))
    return found


def reference_key(run: Run[DpoConfig], groups: Mapping[str, Trees]) -> str:
    """SHA-256 of what decides the numbers: the model by its files, how it computes, and the tokens of every answer,
    which data, template and lengths decide."""
    parents = read_json(run.folder.path / "manifest.json")["parents"]
    named = {role: each.get("sha256", each["path"]) for role, each in parents.items()}
    settings = {"models": named, "dtype": run.config.model.dtype, "quantize": run.config.model.quantize}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, trees in sorted(groups.items()):
        digest.update(f"{name} {len(trees)}".encode())
        for prompt, answers in trees:
            for ids in (prompt, *answers):
                digest.update(f"|{len(ids)}|".encode() + np.ascontiguousarray(ids, np.int32).tobytes())
    return digest.hexdigest()


def _refused(given: str, known: str | None) -> ArtifactError:
    what = "holds no reference log-probabilities" if known is None else "has those of another model or other rows"
    return ArtifactError(
        f"{given} {what}",
        where="dpo.reference_from",
        expected="a run on the same model, rows, template, lengths and dtype",
        fix="name such a run, or leave dpo.reference_from empty: they are computed once before the first step",
    )


def _known_key(file: Path) -> str | None:
    """The key that a file was written for; None where there is no file, or one that a crash cut short."""
    try:
        with safe_open(str(file), framework="numpy") as content:
            return str((content.metadata() or {}).get("key"))
    except (FileNotFoundError, SafetensorError):
        return None


def _split(found: Mapping[str, np.ndarray], groups: Mapping[str, Trees]) -> dict[str, Logprobs]:
    split: dict[str, Logprobs] = {}
    for name, trees in groups.items():
        numbers = iter(found[name].tolist())
        split[name] = [tuple(next(numbers) for _ in answers) for _, answers in trees]
    return split


def _write(file: Path, found: Mapping[str, Logprobs], key: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".partial")
    flat = {name: np.asarray([each for row in rows for each in row], np.float32) for name, rows in found.items()}
    save_file(flat, beside, metadata={"key": key})
    beside.replace(file)
