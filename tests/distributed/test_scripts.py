"""The stage scripts as a user starts them: two ranks and a ZeRO stage change nothing but the time it takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.artifacts.reload import reload_and_compare
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.train.checkpoint_export import publish_checkpoint
from tests.distributed.conftest import poisoned
from tests.distributed.problem import EOS, REALLY_PARTITIONED
from tests.support.launcher import REPOSITORY, run_alone, run_deepspeed, together
from tests.support.lora_runs import make_lora_run

SFT = REPOSITORY / "scripts" / "step1_sft.py"
PPO = REPOSITORY / "scripts" / "step3_ppo.py"
QUESTIONS = (
    "오늘 날씨가 참 좋네요!",
    "점심에 뭘 먹으면 좋을까요?",
    "내일 비가 온대요.",
    "혼자 먹어도 괜찮아?",
    "제주도는 몇 박이 좋아요?",
)
ANSWERS = ("네, 우산을 꼭 챙기세요.", "김치찌개는 어떠세요?", "푹 쉬어 보세요.", "귀찮게 왜 물어봐?")
OPTIMIZER = """
  lr: 5.0e-3
  epsilon: 1.0e-4  # keeps rounding small where a gradient is 0
  max_grad_norm: 0.5
  weight_decay: 0.1
"""


@dataclass(frozen=True)
class Finished:
    """What a run left."""

    metrics: list[dict[str, float]]
    samples: list[dict[str, Any]]
    state: dict[str, Any]
    weights: dict[str, torch.Tensor]
    manifest: dict[str, Any]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_run(folder: Path) -> Finished:
    return Finished(
        lines(folder / "metrics.jsonl"),
        lines(folder / "samples.jsonl"),
        json.loads((folder / "state.json").read_text(encoding="utf-8")),
        load_file(folder / "model" / "model.safetensors"),
        json.loads((folder / "manifest.json").read_text(encoding="utf-8")),
    )


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sft_config(tmp_path_factory: pytest.TempPathFactory, tiny_neox: Path) -> Path:
    """Fifteen rows in batches of six: the last holds three, which two ranks cannot share evenly."""
    folder = tmp_path_factory.mktemp("sft")
    pairs = [{"prompt": question, "response": answer} for question in QUESTIONS for answer in ANSWERS]
    write_rows(folder / "train.jsonl", pairs[:15])
    write_rows(folder / "eval.jsonl", pairs[15:])
    text = f"""
model:
  path: {tiny_neox}
data:
  train: {folder}/train.jsonl
  eval: {folder}/eval.jsonl
  template: kullm
  max_length: 160
train:
  batch_size: 6
  micro_tokens: 320
{OPTIMIZER}
deepspeed:
  overrides: {json.dumps({"zero_optimization": REALLY_PARTITIONED})}
sampling:
  max_new_tokens: 6
  max_prompt_tokens: 128
log:
  to: []
"""
    (folder / "sft.yaml").write_text(text, encoding="utf-8")
    return folder / "sft.yaml"


@pytest.fixture(scope="module")
def ppo_config(tmp_path_factory: pytest.TempPathFactory, tiny_neox: Path, tiny_reward: Path) -> Path:
    """Two iterations of eight answers, some of which end with EOS."""
    folder = tmp_path_factory.mktemp("ppo")
    likely_to_end(tiny_neox, folder / "actor")
    shutil.copytree(tiny_reward, folder / "reward")
    manifest = {"stage": "reward", "parents": {}, "data": []}
    (folder / "reward" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    prompts = [{"prompt": f"{first} {second}"} for first in QUESTIONS for second in ANSWERS]
    write_rows(folder / "train.jsonl", prompts[:16])
    write_rows(folder / "eval.jsonl", prompts[16:])
    text = f"""
actor:
  path: {folder}/actor
reward:
  path: {folder}/reward
  min_accuracy: null
data:
  train: {folder}/train.jsonl
  eval: {folder}/eval.jsonl
  template: kullm
  max_length: 200
train:
  batch_size: 4
  micro_tokens: 320
  warmup_steps: 0
{OPTIMIZER}
critic:
{OPTIMIZER}
ppo:
  rollout_size: 8
  epochs: 2
  kl_coefficient: 0.1
  kl_target: 0.5
sampling:
  max_new_tokens: 12
  max_prompt_tokens: 160
  batch_size: 4
log:
  to: []
"""
    (folder / "ppo.yaml").write_text(text, encoding="utf-8")
    return folder / "ppo.yaml"


def likely_to_end(source: Path, target: Path) -> None:
    """A copy of a GPT-NeoX folder that draws EOS about once in six tokens, so that answers end by chance."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights["gpt_neox.final_layer_norm.bias"] += 0.5
    weights["embed_out.weight"][EOS] = 0.3
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def shared_buffers() -> set[str]:
    """DeepSpeed's shared-memory files, 64 MiB each, which it never removes itself."""
    return {path.name for path in Path("/dev/shm").glob("deepspeed_allreduce_buffer_*")}


def test_two_ranks_at_zero3_fine_tune_as_one_does(sft_config: Path) -> None:
    before = shared_buffers()
    alone, shared = together(
        lambda: run_stage(SFT, sft_config, "alone", ranks=1, stage=0),
        lambda: run_stage(SFT, sft_config, "shared", ranks=2, stage=3),
    )
    assert [row["step"] for row in alone.metrics] == [1, 2, 3]
    assert "eval/loss" in alone.metrics[-1]
    require_same_metrics(shared, alone, ("loss", "eval/loss", "lr", "grad_norm", "tokens"), tolerance=1e-5)
    assert shared.samples == alone.samples
    assert alone.samples
    require_same_export(shared, alone)
    assert shared_buffers() <= before


def test_two_ranks_at_zero2_do_ppo_as_one_does(ppo_config: Path) -> None:
    """At 1e-4: the second iteration starts from updates that differ by rounding, each reads three
    other models, and whitening divides by the spread of what they say."""
    alone, shared = together(
        lambda: run_stage(PPO, ppo_config, "alone", ranks=1, stage=0),
        lambda: run_stage(PPO, ppo_config, "shared", ranks=2, stage=2),
    )
    assert [row["step"] for row in alone.metrics] == [1, 2]
    assert all(0 < row["rollout/eos_rate"] < 1 for row in alone.metrics)
    assert alone.metrics[0]["objective/kl"] == pytest.approx(0, abs=1e-4)  # the actor is still its reference
    assert abs(alone.metrics[1]["objective/kl"]) > 1e-2
    assert alone.metrics[1]["objective/kl_coefficient"] != alone.metrics[0]["objective/kl_coefficient"]
    names = set(alone.metrics[0]) - {name for name in alone.metrics[0] if name.endswith("_s")}
    assert {
        "objective/reward",
        "objective/kl",
        "rollout/eos_rate",
        "loss",
        "policy/loss",
        "value/loss",
        "grad_norm",
    } <= names
    require_same_metrics(shared, alone, sorted(names), tolerance=1e-4)
    require_same_metrics(shared, alone, ("eval/reward", "eval/eos_rate"), tolerance=1e-4)
    assert answers(shared) == answers(alone)
    require_same_export(shared, alone)


def test_roles_on_one_backbone_leave_the_folder_of_a_lora_run(
    ppo_config: Path, tiny_neox: Path, chat_tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    """adapter/ on the base computes what model/ does, and neither is what the actor started from. The checkpoint that
    two ranks left holds the same model."""
    sft = make_lora_run(tiny_neox, tmp_path / "sft", chat_tokenizer, stage="sft", seed=7)
    reward = make_lora_run(tiny_neox, tmp_path / "reward", chat_tokenizer, stage="reward", seed=8)
    overrides = [f"run.dir={tmp_path}/run", "ppo.roles=shared", f"actor.path={sft}", f"reward.path={reward}"]
    overrides += ["deepspeed.zero_stage=2", "run.max_steps=1", "model.gradient_checkpointing=true"]
    run_deepspeed(PPO, "--config", ppo_config, *overrides, ranks=2)
    run = tmp_path / "run"
    assert json.loads((run / "state.json").read_text(encoding="utf-8"))["status"] == "finished"
    ids = torch.tensor([[7, 30, 12, 99, 250, 4]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(run / "model").eval()(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_neox)
        adapted = PeftModel.from_pretrained(base, str(run / "adapter")).eval()(input_ids=ids).logits
        start = AutoModelForCausalLM.from_pretrained(sft / "model").eval()(input_ids=ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-5)
    assert float((merged - start).abs().max()) > 1e-3
    entry = json.loads((run / "adapter" / "base.json").read_text(encoding="utf-8"))
    assert entry == json.loads((sft / "adapter" / "base.json").read_text(encoding="utf-8"))
    publish_checkpoint(run, tmp_path / "out", "latest", reload=reload_and_compare)
    stored, published = (load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "out"))
    assert stored.keys() == published.keys()
    assert all(torch.equal(published[name], value) for name, value in stored.items())


def test_a_model_that_gives_nan_ends_the_run_at_its_first_step(
    sft_config: Path, tiny_neox: Path, tmp_path: Path
) -> None:
    first = AutoTokenizer.from_pretrained(tiny_neox)("아래는 작업을")["input_ids"][0]  # how every prompt begins
    broken = poisoned(tiny_neox, tmp_path / "broken", token=first)
    overrides = [f"run.dir={tmp_path}/run", f"model.path={broken}", "deepspeed.zero_stage=2"]
    result = run_deepspeed(SFT, "--config", sft_config, *overrides, ranks=2, check=False)
    assert result.returncode != 0
    assert "NonFiniteError: step 1: the loss is nan; the weights were not updated" in result.stdout
    state = json.loads((tmp_path / "run" / "state.json").read_text(encoding="utf-8"))
    assert (state["status"], state["step"]) == ("failed", 0)
    assert "step 1" in state["reason"]
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def run_stage(script: Path, config: Path, name: str, *, ranks: int, stage: int) -> Finished:
    folder = config.parent / name
    overrides = [f"run.dir={folder}", f"deepspeed.zero_stage={stage}"]
    if ranks == 1:
        run_alone(script, "--config", config, *overrides)
    else:
        run_deepspeed(script, "--config", config, *overrides, ranks=ranks)
    finished = read_run(folder)
    assert finished.state["status"] == "finished"
    settings = finished.manifest["settings"]
    assert (settings["world_size"], settings["zero_stage"]) == (ranks, stage)
    return finished


def require_same_metrics(found: Finished, expected: Finished, names: Sequence[str], *, tolerance: float) -> None:
    assert len(found.metrics) == len(expected.metrics)
    for ours, other in zip(found.metrics, expected.metrics, strict=True):
        chosen = {name: ours[name] for name in names if name in other}
        wanted = {name: other[name] for name in names if name in other}
        assert chosen == pytest.approx(wanted, rel=tolerance, abs=tolerance), f"step {other['step']}"


def answers(run: Finished) -> list[tuple[str, bool]]:
    return [(row["answer"], row["finished"]) for row in run.samples]


def require_same_export(found: Finished, expected: Finished) -> None:
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=1e-5, atol=2e-6, msg=name)
