"""Runs as a stage leaves them, made by hand on tiny models, and what becomes of their export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf.artifacts.export import save_model
from rlhf.artifacts.files import sha256_of, write_json
from rlhf.artifacts.publish import publish
from rlhf.artifacts.publish_options import ExportOptions
from rlhf.artifacts.reload import reload_and_compare
from rlhf.config.load import dump_config, load_config
from rlhf.config.sections import LoraSection, SamplingSection
from rlhf.config.stages import STAGES
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ArtifactError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedModel, load_causal_lm

IDS = [5, 9, 300, 42, 7, 250, 3, 77]


@torch.no_grad()
def train(model: PackedModel, amount: float = 0.05) -> PackedModel:
    """Moves every trainable weight, as optimizer steps would."""
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=amount)
    return model


def finish_run(
    run: Path, live: PackedModel, tokenizer: ChatTokenizer, base: Path, *, stage: str = "sft", **save
) -> Path:
    """What a stage leaves behind."""
    run.mkdir(parents=True)
    sampling = None if stage == "reward" else SamplingSection(max_new_tokens=33, top_k=20)
    weights = {name: tensor.detach().clone() for name, tensor in live.model.state_dict().items()}
    options = {"dtype": "float32", "base_path": str(base), "sampling": sampling} | save
    save_model(live, weights, run / "model", tokenizer, **options)
    report = {"role": "train", "name": "talks", "path": "/data/talks.jsonl", "sha256": "ab" * 32}
    manifest = {
        "stage": stage,
        "parents": {"base": {"path": str(base), "sha256": "cd" * 32}},
        "data": [report | {"num_rows": 1234, "num_kept": 1200}],
        "packages": {"torch": "2.13.0"},
    }
    write_json(run / "model" / "manifest.json", manifest)
    write_json(run / "state.json", {"status": "finished", "stage": stage, "step": 3, "reason": ""})
    overrides = ["train.lr=0.00025", "model.lora.rank=2", f"run.dir={run}"]
    (run / "config.yaml").write_text(dump_config(load_config(STAGES[stage].config, None, overrides)))
    (run / "metrics.jsonl").write_text('{"step": 2, "eval_loss": 3.5}\n{"step": 3, "eval_loss": 3.25}\n{"step": 4}\n')
    return run


def adapted(base: Path) -> PackedModel:
    live = load_causal_lm(str(base))
    add_lora(live, LoraSection(rank=2, alpha=8))
    return train(live)


def here(run: Path, out: Path, **options):
    """`publish` with the reload in this process."""
    return publish(run, out, ExportOptions(**options), reload=reload_and_compare)


def refused(run: Path, out: Path, match: str, **options) -> None:
    """Nothing is written anywhere, and the error says why."""
    before = sha256_of(run), sorted(out.parent.iterdir())
    with pytest.raises(ArtifactError, match=match):
        here(run, out, **options)
    assert (sha256_of(run), sorted(out.parent.iterdir())) == before


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(torch.tensor([IDS])).logits[0].float()
