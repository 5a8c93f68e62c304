"""Whether a model can be exported, proved at the start of a run on names and shapes: no weight is gathered or written.

What `save_model` will do at the end is compared with an empty model of the same configuration: the names that a strict
load expects, their shapes, which of them are one parameter, and the room that the weights take.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.engine.shared_parameters import every_name, whole_shape
from rlhf.errors import ArtifactError, ModelError
from rlhf.models.loading import DTYPES, PackedModel, PackedScalarModel

START = "start of the stage"
NUM_NAMED = 4
ADAPTER_PARTS = ("lora_", "original_module")  # of peft: what a merged model does not have


class ExportShapes(NamedTuple):
    """What a model is saved as: the shape of each name, and the groups of names that are one parameter."""

    shapes: Mapping[str, tuple[int, ...]]
    ties: frozenset[frozenset[str]]

    @property
    def num_elements(self) -> int:
        """Of the weights as they are stored: a tied one once."""
        repeated = {name for group in self.ties for name in sorted(group)[1:]}
        return sum(prod(shape) for name, shape in self.shapes.items() if name not in repeated)


def export_shapes(model: Any) -> ExportShapes:
    """Names, shapes and ties of a Hugging Face model without its adapters, whole also where partitioned or packed."""
    shapes: dict[str, tuple[int, ...]] = {}
    ties: list[frozenset[str]] = []
    for parameter, names in every_name(model):
        kept = [plain_name(name) for name in names if not any(part in name for part in ADAPTER_PARTS)]
        shapes |= dict.fromkeys(kept, whole_shape(parameter))
        if len(kept) > 1:
            ties.append(frozenset(kept))
    return ExportShapes(shapes, frozenset(ties))


def plain_name(name: str) -> str:
    """The name that a parameter has without peft around and inside the model."""
    inner = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    before, wrapped, after = inner.partition(".modules_to_save.")
    return f"{before}.{after.partition('.')[2]}" if wrapped else inner


def prove_export(live: PackedModel, folder: Path, *, dtype: str, free: int | None = None) -> str:
    """Proves that `live` can be saved below `folder` in `dtype`, and says what was proved.

    Args:
        live: the wrapped model; its weights may be partitioned, packed or under adapters.
        folder: the run's folder.
        free: bytes free there (default: asked of the file system).

    Raises: ModelError when a strict load into an empty model of its configuration would fail; ArtifactError when the
        disk has no room for the weights.
    """
    found = export_shapes(live.model)
    auto = AutoModelForSequenceClassification if isinstance(live, PackedScalarModel) else AutoModelForCausalLM
    with torch.device("meta"):
        empty = auto.from_config(live.model.config)
    _require_same(type(empty).__name__, found, export_shapes(empty))
    declared = set(getattr(empty, "all_tied_weights_keys", None) or {})
    for group in found.ties:
        if len(group - declared) > 1:
            raise _refused(
                type(empty).__name__,
                f"{', '.join(sorted(group))} are one parameter, and the model does not declare it",
                "a model whose _tied_weights_keys name every repeated parameter: transformers refuses to save others",
            )
    size = found.num_elements * DTYPES[dtype].itemsize
    _require_room(size, shutil.disk_usage(folder).free if free is None else free, folder)
    tied = f", {len(found.ties)} of them tied" if found.ties else ""
    return f"{len(found.shapes)} names{tied}, {size / 2**20:.1f} MiB in {dtype}: as a {type(empty).__name__} expects"


def _require_same(kind: str, found: ExportShapes, expected: ExportShapes) -> None:
    other = sorted(
        name
        for name in found.shapes.keys() | expected.shapes.keys()
        if found.shapes.get(name) != expected.shapes.get(name)
    )
    if other:
        listed = "; ".join(
            f"{name}: {_shape(found.shapes.get(name))}, expected {_shape(expected.shapes.get(name))}"
            for name in other[:NUM_NAMED]
        )
        raise _refused(kind, f"{len(other)} of its weights differ from those of its configuration: {listed}")
    if found.ties != expected.ties:
        names = sorted(", ".join(sorted(group)) for group in found.ties ^ expected.ties)
        raise _refused(kind, f"its configuration ties other weights than the loaded model: {'; '.join(names)}")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def _refused(kind: str, problem: str, expected: str = "a model that its own configuration describes") -> ModelError:
    return ModelError(
        f"this {kind} could not be exported after training: {problem}",
        where=START,
        expected=expected,
        fix="correct config.json (such as tie_word_embeddings, vocab_size), or use another model",
    )


def _require_room(size: int, free: int, folder: Path) -> None:
    if size > free:
        raise ArtifactError(
            f"the exported weights take {size / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB are free at {folder}",
            where="run.dir",
            expected="room for the export; checkpoints, with their optimizer state, take more",
            fix="free disk space, or set run.dir to another disk",
        )
