"""`rlhf export --checkpoint`: what two ranks at ZeRO 3 saved, as a folder that plain transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.artifacts.files import sha256_of, write_json
from rlhf.artifacts.publish_options import ExportOptions
from rlhf.artifacts.reload import reload_and_compare
from rlhf.cli import main
from rlhf.config.load import dump_config, load_config
from rlhf.config.sections import LoraSection
from rlhf.config.stages import STAGES
from rlhf.errors import ArtifactError, CheckpointError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedModel, load_causal_lm, load_scalar_model
from rlhf.train.checkpoint_export import publish_checkpoint
from tests.support.finished_runs import logits, train
from tests.support.saved_engines import save_zero3


def stopped_run(run: Path, live: PackedModel, base: Path, *, stage: str = "sft", **options) -> Path:
    """A run that was killed after step 6; its checkpoint of step 4 holds the live model."""
    weights = {name: each for name, each in live.named_parameters() if each.requires_grad}
    checkpoint = run / "checkpoints" / "step-000004"
    save_zero3(checkpoint / ("actor" if stage == "ppo" else "model"), weights, **options)
    write_json(checkpoint / "trainer.json", {"step": 4, "best": None, "world_size": 2, "zero_stage": 3})
    (run / "checkpoints" / "latest").write_text("step-000004")
    write_json(run / "state.json", {"status": "failed", "stage": stage, "step": 6, "reason": "killed"})
    manifest = {"stage": stage, "parents": {"base": {"path": str(base)}}, "data": [], "packages": {}}
    write_json(run / "manifest.json", manifest)
    lora = ["model.lora.rank=2", "model.lora.alpha=8"] if hasattr(live.model, "peft_config") else []
    overrides = [f"model.path={base}", "data.template=kullm", *lora]
    (run / "config.yaml").write_text(dump_config(load_config(STAGES[stage].config, None, overrides)), encoding="utf-8")
    (run / "metrics.jsonl").write_text('{"step": 4, "eval_loss": 3.5}\n{"step": 6, "eval_loss": 9.75}\n')
    return run


def here(run: Path, out: Path, checkpoint: str = "latest", **options):
    return publish_checkpoint(run, out, checkpoint, ExportOptions(**options), reload=reload_and_compare)


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_whole_weights_are_those_of_the_shards(stage, tiny_neox, tmp_path):
    """Of stage 3 those of the actor."""
    live = train(load_causal_lm(str(tiny_neox)))
    run = stopped_run(tmp_path / "run", live, tiny_neox, stage=stage)
    before = sha256_of(run)
    published = here(run, tmp_path / "out", "step-000004")
    assert "step-000004, a checkpoint after step 4" in published.summary()
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(live.model), rtol=1e-5, atol=1e-5
    )
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| eval_loss | 3.5 |" in card  # not that of step 6
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["export"]
    assert (entry["run"], entry["checkpoint"]) == (str(run), "step-000004")
    assert sha256_of(run) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_averages_are_exported_where_they_were_kept(tiny_neox, tmp_path):
    live = train(load_causal_lm(str(tiny_neox)))
    average = {name: each.detach() / 2 for name, each in live.named_parameters()}
    run = stopped_run(tmp_path / "run", live, tiny_neox, average=average)
    here(run, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    name = "gpt_neox.layers.0.mlp.dense_4h_to_h.weight"
    assert torch.equal(stored[name], average[f"model.{name}"])


@pytest.mark.parametrize("part", ["merged", "adapter"])
def test_an_adapters_shards_go_on_the_base(part, tiny_neox, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    add_lora(live, LoraSection(rank=2, alpha=8))
    run = stopped_run(tmp_path / "run", train(live), tiny_neox)
    here(run, tmp_path / "out", part=part)
    if part == "merged":
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    else:
        found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_neox), tmp_path / "out")
    torch.testing.assert_close(logits(found), logits(live.model), rtol=1e-5, atol=1e-5)
    assert (logits(found) - logits(AutoModelForCausalLM.from_pretrained(tiny_neox))).abs().max() > 0.1


def test_a_reward_loads_as_a_classifier(tiny_neox, tmp_path):
    live = train(load_scalar_model(str(tiny_neox), new_head=True))
    run = stopped_run(tmp_path / "run", live, tiny_neox, stage="reward")
    published = here(run, tmp_path / "out")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[5, 9, 300, 42]])
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, live.model.eval()(ids).logits, rtol=1e-5, atol=1e-5)
    assert "scores are as trained" in published.note


@pytest.mark.parametrize(
    ("name", "expected"),
    [("step-000003", "latest, step-000004"), ("best", "latest, step-000004"), ("4", "latest, step-000004")],
)
def test_a_checkpoint_that_is_not_there_is_refused(name, expected, tiny_neox, tmp_path, capsys):
    run = stopped_run(tmp_path / "run", load_causal_lm(str(tiny_neox)), tiny_neox)
    words = ["export", "--run", str(run), "--checkpoint", name, "--out", str(tmp_path / "out")]
    assert main(words) == 1
    text = capsys.readouterr().err
    assert f"--checkpoint: {run}/checkpoints holds no checkpoint {name}" in text
    assert expected in text
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_refusals_leave_nothing(tiny_neox, tmp_path):
    run = stopped_run(tmp_path / "run", load_causal_lm(str(tiny_neox)), tiny_neox)
    with pytest.raises(ArtifactError, match=f"{run} trained all weights and has no adapter"):
        here(run, tmp_path / "out", part="adapter")
    (run / "config.yaml").unlink()
    with pytest.raises(ArtifactError, match=r"lacks its state\.json, config\.yaml or manifest\.json"):
        here(run, tmp_path / "out")
    (run / "checkpoints" / "step-000004" / "model" / "layout.json").unlink()
    with pytest.raises((ArtifactError, CheckpointError)):
        here(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_gguf_names_the_way_there(tmp_path, capsys):
    words = ["export", "--run", str(tmp_path), "--out", str(tmp_path / "out"), "--format", "gguf"]
    assert main(words) == 1
    assert f"python convert_hf_to_gguf.py {tmp_path}/out" in capsys.readouterr().err
