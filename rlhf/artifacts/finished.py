"""A finished run as something to publish: what it holds, and whether that is what was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.artifacts.adapter import require_same_base
from rlhf.artifacts.export import TOLERANCE, adapter_base, check_adapter, load_base, load_packed, with_adapter
from rlhf.artifacts.files import read_json
from rlhf.artifacts.fixed_text import FixedTextOutputs, fixed_sequences, packed_outputs
from rlhf.artifacts.run_folder import RunFolder
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ArtifactError
from rlhf.models.loading import DTYPES, PackedModel


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run folder whose training ended and whose model/ was verified.

    adapter: the adapter's folder, None for a run that trained all weights or whose adapter's base is gone.
    note: what users must know about where the weights came from; may be empty.
    """

    path: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    adapter: Path | None
    note: str

    @property
    def model(self) -> Path:
        return RunFolder(self.path).model

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def scalar(self) -> bool:
        """Whether the model gives one number instead of logits."""
        return str(self.config["architectures"][0]).endswith("ForSequenceClassification")

    @property
    def dtype(self) -> str:
        """The type that model/ is stored in."""
        name = str(self.config.get("dtype") or "float32")
        if name not in DTYPES:
            raise ArtifactError(f"{self.model} is stored as {name}", expected=f"one of {', '.join(DTYPES)}")
        return name

    def live_model(self) -> PackedModel:
        """The model as it was trained, in float32: model/, or base and adapter unmerged."""
        if self.adapter is None:
            return self.stored_model()
        return with_adapter(load_base(self.adapter, scalar=self.scalar, dtype="float32"), self.adapter)

    def stored_model(self) -> PackedModel:
        """model/ in float32."""
        return load_packed(str(self.model), scalar=self.scalar)

    @property
    def score_offset(self) -> float:
        """Reward units that scores of `live_model` lack; 0 where model/ itself is live."""
        return 0.0 if self.adapter is None else adapter_base(self.adapter).score_offset

    def fixed_text_outputs(self, live: PackedModel, tokenizer: ChatTokenizer) -> FixedTextOutputs:
        """The live model's outputs on embedded text.

        Raises: ArtifactError when model/ computes something else: then the adapter is not this run's.
        """
        max_length = int(self.config.get("max_position_embeddings") or 10**6)
        sequences = fixed_sequences(tokenizer, max_length)
        outputs = packed_outputs(live, sequences) + self.score_offset
        if self.adapter is None:
            return FixedTextOutputs(sequences, outputs)
        stored = packed_outputs(self.stored_model(), sequences)
        difference = float((outputs - stored).abs().max())
        if not difference <= TOLERANCE[self.dtype] * max(1.0, float(stored.abs().max())):
            raise ArtifactError(
                f"{self.adapter} on its base and {self.model} differ by {difference:.3g} on the fixed text",
                expected=f"the same numbers up to the rounding of {self.dtype}: both are of one run",
                fix="one of the two was replaced; train again, or remove the other from the run folder",
            )
        return FixedTextOutputs(sequences, outputs)


def open_finished(path: Path) -> FinishedRun:
    """Reads a run folder.

    Raises: ArtifactError when it holds no finished model, an adapter that trained nothing, or one whose base changed.
    """
    folder = RunFolder(path)
    state = folder.status()
    described = f"its state is {state}" if state else "it has no state.json"
    if not (folder.model / "config.json").is_file() or not (folder.model / "manifest.json").is_file():
        raise ArtifactError(
            f"{path} holds no finished model ({described})",
            expected="a run folder with model/, as a stage leaves it when it ends",
            fix="name the run folder itself, or finish the run with --resume auto",
        )
    if state != "finished":
        raise ArtifactError(
            f"{path} is not finished ({described})",
            expected="a run whose state.json says finished: only then was model/ verified",
            fix="finish the run with --resume auto",
        )
    adapter, note = _usable_adapter(folder)
    manifest, config = read_json(folder.model / "manifest.json"), read_json(folder.model / "config.json")
    return FinishedRun(path, manifest, config, adapter, note)


def _usable_adapter(folder: RunFolder) -> tuple[Path | None, str]:
    """The adapter, unless there is none or its base is gone; and a note in the latter case."""
    if not folder.adapter.is_dir():
        return None, ""
    check_adapter(folder.adapter)
    base = adapter_base(folder.adapter)
    if base.sha256 is not None and not Path(base.path).is_dir():  # without a hash it is a hub id
        return None, f"the adapter's base {base.path} is absent; {folder.model} (merged by the run) was used"
    require_same_base(folder.adapter, fix=f"restore the base, or move it away to publish {folder.model} instead")
    return folder.adapter, ""
