"""Loads an exported folder as its readers will, in a process that knows nothing of the run, and compares.

`python -m rlhf.artifacts.reload FOLDER OUTPUTS OUTCOME` is what `in_fresh_process` starts. Whole models are loaded by
plain transformers, a conversation at a time; an adapter by peft on the base it names.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.artifacts.export import adapter_base, load_base, with_adapter
from rlhf.artifacts.files import read_json, write_json
from rlhf.artifacts.fixed_text import FixedTextOutputs, packed_outputs
from rlhf.artifacts.publish_options import Part
from rlhf.errors import ArtifactError

NUM_ERROR_LINES = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reloaded folder differs from the live model in float32, on the fixed text.

    difference: largest absolute difference (logits or reward units); largest: largest absolute output of the live
    model; agreement: share of different contexts with the same most likely token, None for a one-number model.
    """

    difference: float
    largest: float
    num_outputs: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Published:
    """What was written and how it compares with the live model."""

    folder: Path
    part: Part
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


Reload = Callable[[Path, FixedTextOutputs], Outcome]


def in_fresh_process(folder: Path, expected: FixedTextOutputs) -> Outcome:
    """`reload_and_compare` by a new interpreter.

    Raises: ArtifactError with the end of what it wrote when it fails.
    """
    with TemporaryDirectory(prefix="rlhf-export-") as scratch:
        outputs_file, outcome_file = Path(scratch) / "outputs.pt", Path(scratch) / "outcome.json"
        expected.save(outputs_file)
        command = [sys.executable, "-m", "rlhf.artifacts.reload", str(folder), str(outputs_file), str(outcome_file)]
        finished = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if finished.returncode or not outcome_file.is_file():
            lines = "\n".join(finished.stderr.strip().splitlines()[-NUM_ERROR_LINES:])
            raise ArtifactError(
                f"a fresh process cannot load {folder} (exit status {finished.returncode}):\n{lines}",
                fix="see the last line; a status of -9 means that memory ran out",
            )
        return Outcome(**read_json(outcome_file))


@torch.no_grad()
def reload_and_compare(folder: Path, expected: FixedTextOutputs) -> Outcome:
    """Loads `folder`, in the type it was saved in, and compares it with the expected outputs."""
    outputs = (
        _adapter_outputs(folder, expected) if (folder / "base.json").is_file() else _plain_outputs(folder, expected)
    )
    agreement: float | None = None
    if expected.outputs.ndim == 2:
        same = outputs.argmax(-1) == expected.outputs.argmax(-1)
        agreement = float(same[expected.first_seen()].float().mean())
    return Outcome(
        difference=float((outputs - expected.outputs).abs().max()),
        largest=float(expected.outputs.abs().max()),
        num_outputs=len(expected.outputs),
        agreement=agreement,
    )


def _plain_outputs(folder: Path, expected: FixedTextOutputs) -> Tensor:
    """Outputs by transformers alone. A score shift kept in the configuration is added: transformers ignores it."""
    config: Any = AutoConfig.from_pretrained(folder)
    scalar = expected.outputs.ndim == 1
    auto: Any = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, dtype="auto", output_loading_info=True)
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ArtifactError(f"{folder} lacks weights: {sorted(report['missing_keys'])[:4]}")
    model.eval()
    logits = [model(torch.tensor([ids]), use_cache=False).logits[0].float() for ids in expected.sequences]
    if scalar:
        return torch.cat(logits) + float(getattr(config, "score_shift", 0.0))
    return torch.cat([each[:-1] for each in logits])


def _adapter_outputs(folder: Path, expected: FixedTextOutputs) -> Tensor:
    """Outputs of an adapter on its base, in float32, with the score offset that the adapter's folder states."""
    base = load_base(folder, scalar=expected.outputs.ndim == 1, dtype="float32")
    return packed_outputs(with_adapter(base, folder), expected.sequences) + adapter_base(folder).score_offset


if __name__ == "__main__":
    found = reload_and_compare(Path(sys.argv[1]), FixedTextOutputs.load(Path(sys.argv[2])))
    write_json(Path(sys.argv[3]), asdict(found))
