"""The problem, its models and the runs of the workers; each worker starts once a session."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf.data.tokenizer import ChatTokenizer
from tests.distributed import reference
from tests.distributed.problem import PAD, Problem, make_problem
from tests.support.launcher import run_deepspeed, together
from tests.support.lora_runs import make_lora_run

WORKERS = Path(__file__).parent / "workers"


@dataclass(frozen=True)
class Outcome:
    """What a worker wrote."""

    numbers: dict[str, Any]
    weights: dict[str, dict[str, Tensor]]


@pytest.fixture(scope="session")
def paths(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_neox: Path,
    tiny_llama: Path,
    tiny_reward: Path,
    chat_tokenizer: ChatTokenizer,
) -> dict[str, Path]:
    """Model folders by role; reference and scorer differ from actor and critic in every weight. The runs are LoRA runs
    on neox."""
    folder = tmp_path_factory.mktemp("roles")
    return {
        "neox": tiny_neox,
        "llama": tiny_llama,
        "reward": tiny_reward,
        "reference": moved(tiny_neox, folder / "reference"),
        "scorer": moved(tiny_reward, folder / "scorer"),
        "poisoned": poisoned(tiny_neox, folder / "poisoned", token=PAD),
        "sft run": make_lora_run(tiny_neox, folder / "sft", chat_tokenizer, stage="sft", seed=5),
        "reward run": make_lora_run(tiny_neox, folder / "reward", chat_tokenizer, stage="reward", seed=6),
    }


def moved(source: Path, target: Path) -> Path:
    """A copy of a model folder with every weight changed a little."""
    shutil.copytree(source, target)
    generator = torch.Generator().manual_seed(9)
    weights = load_file(target / "model.safetensors")
    changed = {name: weight + 0.05 * torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    save_file(changed, target / "model.safetensors", metadata={"format": "pt"})
    return target


def poisoned(source: Path, target: Path, *, token: int) -> Path:
    """A copy of a GPT-NeoX folder that gives NaN wherever it reads `token`."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    weights["gpt_neox.embed_in.weight"][token] = torch.nan
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture(scope="session")
def problem(paths: dict[str, Path]) -> Problem:
    made = make_problem()
    return replace(made, samples=reference.completed(made.samples, paths["neox"], paths["reward"]))


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, problem: Problem, paths: dict[str, Path]) -> Path:
    """The file every worker reads."""
    file = tmp_path_factory.mktemp("inputs") / "inputs.pt"
    torch.save({"problem": problem, "paths": {role: str(path) for role, path in paths.items()}}, file)
    return file


@pytest.fixture(scope="session")
def equality(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> list[Outcome]:
    """The same problem solved by one rank and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    return together(
        lambda: run_worker("equality.py", inputs, one, ranks=1),
        lambda: run_worker("equality.py", inputs, two, ranks=2),
    )


@pytest.fixture(scope="session")
def one_rank(equality: list[Outcome]) -> Outcome:
    return equality[0]


@pytest.fixture(scope="session")
def two_ranks(equality: list[Outcome]) -> Outcome:
    return equality[1]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Outcome:
    return run_worker("engine.py", inputs, tmp_path_factory.mktemp("engine"), ranks=2)


def run_worker(name: str, inputs: Path, out: Path, *, ranks: int) -> Outcome:
    run_deepspeed(WORKERS / name, inputs, out, ranks=ranks)
    return read_outcome(out)


def read_outcome(out: Path) -> Outcome:
    weights = torch.load(out / "weights.pt", weights_only=True)
    return Outcome(json.loads((out / "numbers.json").read_text(encoding="utf-8")), weights)
