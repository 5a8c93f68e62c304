"""Korean data, configurations, and the three stages chained once a session.

`korean`   folder of {sft,rankings,prompts}_{train,dev}.jsonl, written here
`configs`  a YAML file a stage on that data; run.dir and the models of all stages but SFT are overrides
`starter`  starts stage scripts (see starts.py)
`chain`    run folders of SFT, reward model and PPO, each made from the one before
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.starts import Starter

THINGS = ("비", "눈", "밥", "차", "책", "옷", "꽃", "약")
QUESTIONS = ("{} 좋아요?", "{} 어때?", "{} 필요해요?", "{} 있어요?")
ANSWERS = ("네, 좋아요!", "그냥 그래요.", "몰라.")  # warm, plain, rude
RANKINGS = [
    {
        "prompt": question.format(thing),
        "responses": [f"{thing}요? {answer}" for answer in ANSWERS],
        "ranks": [1, 2, 3],
        "source": "날씨" if thing in "비눈" else "생활",
    }
    for thing in THINGS
    for question in QUESTIONS
]
COMMON = """
  template: polyglot-chat
  max_length: 128
eval:
  every_steps: 2
checkpoint:
  every_steps: 2
"""
ANSWERING = """
sampling:
  max_new_tokens: 24
  max_prompt_tokens: 64
  batch_size: 16
log:
  samples_every_steps: 4
"""
YAML = {
    "sft": """
model:
  path: {base}
train:
  lr: 5.0e-3
  batch_size: 8
  micro_tokens: 256
  epochs: 2
  weight_decay: 0.1
  schedule: linear
data:
  train: {data}/sft_train.jsonl
  eval: {data}/sft_dev.jsonl""",
    "reward": """
train:
  lr: 2.0e-3
  batch_size: 4
  micro_tokens: 512
data:
  train: {data}/rankings_train.jsonl
  eval: {data}/rankings_dev.jsonl
  demonstrations: {data}/sft_dev.jsonl""",
    "ppo": """
train:
  lr: 1.0e-3
  epochs: 2
  batch_size: 4
  micro_tokens: 256
critic:
  lr: 2.0e-3
ppo:
  rollout_size: 8
  epochs: 2
  kl_coefficient: 0.1
  kl_target: 0.5
  kl_horizon: 64
control:
  best_of: [2]
data:
  train: {data}/prompts_train.jsonl
  eval: {data}/prompts_dev.jsonl""",
    "dpo": """
train:
  lr: 1.0e-3
  batch_size: 4
  micro_tokens: 512
dpo:
  kl_prompts: 4
data:
  train: {data}/rankings_train.jsonl
  eval: {data}/rankings_dev.jsonl""",
}


@dataclass(frozen=True)
class Finished:
    """What a run left; `metrics` without what a clock measured."""

    metrics: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    state: dict[str, Any]
    manifest: dict[str, Any]
    weights: dict[str, torch.Tensor]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_run(folder: Path) -> Finished:
    metrics = [
        {name: value for name, value in line.items() if not name.endswith(("_s", "_per_s"))}
        for line in read_lines(folder / "metrics.jsonl")
    ]
    weights = load_file(folder / "model" / "model.safetensors")
    samples, manifest = read_lines(folder / "samples.jsonl"), read_json(folder / "manifest.json")
    return Finished(metrics, samples, read_json(folder / "state.json"), manifest, weights)


def require_same_run(folder: Path, expected: Finished) -> None:
    """Bit for bit: every logged number, every sampled answer, every exported weight."""
    found = read_run(folder)
    assert found.metrics == expected.metrics
    assert found.samples == expected.samples
    assert found.state == expected.state
    assert found.weights.keys() == expected.weights.keys()
    different = [name for name, weight in expected.weights.items() if not torch.equal(found.weights[name], weight)]
    assert different == []


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 rankings to train on and 4 held out, the demonstrations (best answers) and the questions alone."""
    folder = tmp_path_factory.mktemp("korean")
    parts = {"train": [row for i, row in enumerate(RANKINGS) if i % 8], "dev": RANKINGS[::8]}
    for part, rows in parts.items():
        write_rows(folder / f"rankings_{part}.jsonl", rows)
        pairs = [{"prompt": row["prompt"], "response": row["responses"][0]} for row in rows]
        write_rows(folder / f"sft_{part}.jsonl", pairs)
        write_rows(folder / f"prompts_{part}.jsonl", [{"prompt": row["prompt"]} for row in rows])
    return folder


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory, korean: Path, tiny_neox: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("configs")
    for stage, text in YAML.items():
        filled = text.format(base=tiny_neox, data=korean).lstrip() + COMMON + ("" if stage == "reward" else ANSWERING)
        (folder / f"{stage}.yaml").write_text(filled, encoding="utf-8")
    return {stage: folder / f"{stage}.yaml" for stage in YAML}


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Starter:
    return Starter(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, starter: Starter, configs: dict[str, Path]) -> dict[str, Path]:
    """SFT long enough to learn its answers by heart, a reward model on it, PPO on both."""
    folder = tmp_path_factory.mktemp("chain")
    runs = {stage: folder / stage for stage in ("sft", "reward", "ppo")}
    more = {
        "sft": ["train.epochs=24", "eval.every_steps=28", "checkpoint.every_steps=28", "log.samples_every_steps=28"],
        "reward": [f"model.path={runs['sft']}"],
        "ppo": [f"actor.path={runs['sft']}", f"reward.path={runs['reward']}/model"],
    }
    for stage, path in runs.items():
        starter.run(stage, "--config", configs[stage], f"run.dir={path}", *more[stage])
    return runs
