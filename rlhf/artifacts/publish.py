"""`rlhf export`: a finished run as a folder for release: type converted, adapter merged, verified by a fresh process.

DIR is written atomically, never partial; the run folder is only read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from rlhf.artifacts.export import TOLERANCE, base_entry, merge_adapter, set_generation
from rlhf.artifacts.files import flush_folder, flush_tree, scratch_beside, write_json, write_text
from rlhf.artifacts.finished import FinishedRun, open_finished
from rlhf.artifacts.fixed_text import FixedTextOutputs
from rlhf.artifacts.model_card import Card, model_card
from rlhf.artifacts.publish_options import ExportOptions
from rlhf.artifacts.reload import Outcome, Reload, in_fresh_process
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.errors import ArtifactError
from rlhf.models.loading import DTYPES, PackedModel
from rlhf.models.scalar_head import shift_scores

FLOAT16_MAX = 65504.0
SIZE = re.compile(r"\d+(\.\d+)?\s*([KMGT]i?)?B", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Published:
    """What was written and how it compares with the live model."""

    folder: Path
    dtype: str
    outcome: Outcome
    note: str

    def summary(self) -> str:
        """A few lines for the terminal."""
        outcome = self.outcome
        lines = [f"note: {self.note}"] if self.note else []
        lines.append(
            f"{self.folder}: {self.dtype}, reloaded in a fresh process; differs from the live model in float32 by at "
            f"most {outcome.difference:.2e} (largest output {outcome.largest:.4g}, {outcome.num_outputs} outputs)"
        )
        if outcome.agreement is not None:
            lines.append(f"the most likely token is the same in {outcome.agreement:.2%} of the contexts")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """Where a model came from that is not the end of `run`: the checkpoint's name, and what its users must know."""

    run: Path
    checkpoint: str
    note: str


def publish(
    run: Path,
    out: Path,
    options: ExportOptions = ExportOptions(),
    *,
    origin: ModelOrigin | None = None,
    reload: Reload = in_fresh_process,
) -> Published:
    """Writes the model, or the adapter, of `run` into `out`.

    Args:
        origin: set where `run` was made from a checkpoint.
        reload: what compares the written folder with the live model.

    Raises: ArtifactError for a run that cannot be published, an `out` that cannot be used, and a folder that, loaded
        again, computes other numbers.
    """
    check_request(run, out, options)
    finished = open_finished(run)
    origin = origin or ModelOrigin(run, "", "")
    note = "; ".join(filter(None, (origin.note, finished.note)))
    tokenizer = load_tokenizer(str(finished.model))
    with _written_beside(out) as writing:
        if options.part == "adapter":
            saved, expected = "as trained", _write_adapter(finished, origin.run, tokenizer, writing)
            tolerance = TOLERANCE["float32"]
        else:
            saved = options.dtype or finished.dtype
            expected = _write_merged(finished, tokenizer, writing, saved, options.max_shard_size)
            tolerance = TOLERANCE[saved]
        outcome = reload(writing, expected)
        _check_outcome(outcome, tolerance, saved)
        _describe(finished, origin, writing, Card(out.name, options.part, saved, outcome, note))
    return Published(out, saved, outcome, note)


def refuse_format(name: str, out: Path) -> None:
    """Raises ArtifactError for gguf, with the way to do it: no package converts to it (docs/decisions/011-gguf.md)."""
    if name == "gguf":
        raise ArtifactError(
            "GGUF is not written here: its converter comes with llama.cpp, not with a Python package",
            where="--format",
            fix=f"omit --format, then in a llama.cpp checkout: python convert_hf_to_gguf.py {out} --outtype bf16",
        )


def check_request(run: Path, out: Path, options: ExportOptions) -> None:
    """Raises ArtifactError for an `out` that cannot be used, and for options that do not go together."""
    size = options.max_shard_size
    if not SIZE.fullmatch(size.strip()):
        raise ArtifactError(f"size {size!r}", where="--max-shard-size", expected="such as 5GB or 500MB")
    if options.part == "adapter" and options.dtype is not None:
        raise ArtifactError("an adapter is copied as it was trained", where="--dtype", fix="omit --dtype")
    if not run.is_dir():
        raise ArtifactError(f"no such folder: {run}", where="--run", fix="name a run folder, such as runs/q/sft")
    if out.resolve().is_relative_to(run.resolve()):
        raise ArtifactError(f"{out} is inside the run", where="--out", fix="choose a folder outside of it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} exists and is not empty", where="--out", fix="choose another folder")


@contextmanager
def _written_beside(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when the block succeeds, and is removed when it fails."""
    with scratch_beside(out, "writing") as writing:
        yield writing
        flush_tree(writing)
        writing.rename(out)
        flush_folder(out.parent)


def _write_merged(
    finished: FinishedRun, tokenizer: ChatTokenizer, writing: Path, dtype: str, max_shard_size: str
) -> FixedTextOutputs:
    """Weights, configuration and tokenizer, merged in float32 and rounded once."""
    live = finished.live_model()
    expected = finished.fixed_text_outputs(live, tokenizer)
    model: Any = _whole(finished, live, dtype)
    check_range(model, dtype)
    if not finished.scalar:
        model.generation_config = _generation_of(finished.model) or model.generation_config
    set_generation(model, tokenizer, None)
    model.to(DTYPES[dtype]).save_pretrained(writing, max_shard_size=max_shard_size)
    tokenizer.save(writing)
    return expected


def _whole(finished: FinishedRun, live: PackedModel, dtype: str) -> Any:
    if finished.adapter is None:
        return live.model
    model: Any = merge_adapter(live, dtype=dtype)
    if finished.score_offset:
        shift_scores(model, finished.score_offset)
    return model


def _generation_of(folder: Path) -> GenerationConfig | None:
    if not (folder / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(folder)


def check_range(model: torch.nn.Module, dtype: str) -> None:
    """Raises ArtifactError for a weight that is not finite, or that float16 would make infinite."""
    limit = FLOAT16_MAX if dtype == "float16" else torch.finfo(torch.float32).max
    for name, tensor in model.state_dict().items():
        largest = float(tensor.abs().max()) if tensor.is_floating_point() and tensor.numel() else 0.0
        if not largest <= limit:
            finite = largest < float("inf")
            raise ArtifactError(
                f"{name} holds {largest:.6g}",
                where=f"--dtype {dtype}",
                expected=f"finite weights within +-{limit:.6g}",
                fix="export as bfloat16 or float32" if finite else "this run's weights are broken; train again",
            )


def _write_adapter(finished: FinishedRun, run: Path, tokenizer: ChatTokenizer, writing: Path) -> FixedTextOutputs:
    """The adapter's folder as it is, with the tokenizer and template it was trained with."""
    if finished.adapter is None:
        raise ArtifactError(
            finished.note or f"{run} trained all weights and has no adapter",
            where="--part adapter",
            fix="restore the base" if finished.note else "omit --part",
        )
    expected = finished.fixed_text_outputs(finished.live_model(), tokenizer)
    shutil.copytree(finished.adapter, writing, dirs_exist_ok=True)
    (writing / "README.md").unlink(missing_ok=True)  # an empty form that peft leaves
    tokenizer.save(writing)
    return expected


def _check_outcome(outcome: Outcome, tolerance: float, dtype: str) -> None:
    if not outcome.difference <= tolerance * max(1.0, outcome.largest):
        raise ArtifactError(
            f"reloaded, the folder differs from the live model by {outcome.difference:.3g}; nothing was kept",
            expected=f"at most {tolerance:g} of the largest output {outcome.largest:.4g}",
            fix="export as float32" if dtype in ("float16", "bfloat16") else "report this",
        )


def _describe(finished: FinishedRun, origin: ModelOrigin, writing: Path, card: Card) -> None:
    """manifest.json with an `export` entry, the report card, README.md."""
    outcome = card.outcome
    entry: dict[str, Any] = {
        "part": card.part,
        "dtype": card.dtype,
        "run": str(origin.run),
        "checkpoint": origin.checkpoint,
        "largest_difference": outcome.difference,
        "largest_output": outcome.largest,
        "top1_agreement": outcome.agreement,
        "note": card.note,
    }
    if card.part == "adapter" and finished.adapter is not None:
        entry["score_offset"] = base_entry(finished.adapter)["score_offset"]
    report = finished.model / "report_card.json"
    if report.is_file():
        shutil.copy(report, writing / report.name)
    write_json(writing / "manifest.json", {**finished.manifest, "export": entry})
    write_text(writing / "README.md", model_card(finished, card))
