"""One backbone under the adapters of four roles; expected numbers come from the merged models of the runs, alone in
plain Hugging Face forward passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.artifacts.adapter import find_adapter, read_adapter
from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ArtifactError, ConfigError
from rlhf.models.shared import SharedBackbone
from rlhf.train.policy.shared_roles import Sources, build_backbone, find_sources
from tests.support.lora_runs import LORA, make_lora_run

SEQUENCES = ([7, 30, 12, 99, 250, 4, 0], [55, 8, 301, 17], [9, 9, 120, 33, 2, 18, 71, 64, 0])
OFFSET = 1.25


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_neox: Path, chat_tokenizer: ChatTokenizer) -> dict[str, Path]:
    """An SFT and a reward run on one base, and a reward run on another."""
    folder = tmp_path_factory.mktemp("lora")
    shutil.copytree(tiny_neox, folder / "other")
    weights = load_file(folder / "other" / "model.safetensors")
    save_file({name: weight * 1.01 for name, weight in weights.items()}, folder / "other" / "model.safetensors")
    return {
        "base": tiny_neox,
        "sft": make_lora_run(tiny_neox, folder / "sft", chat_tokenizer, stage="sft", seed=1),
        "reward": make_lora_run(
            tiny_neox, folder / "reward", chat_tokenizer, stage="reward", seed=2, score_offset=OFFSET
        ),
        "foreign": make_lora_run(folder / "other", folder / "foreign", chat_tokenizer, stage="reward", seed=3),
    }


def shared_config(**sections: Any) -> PpoConfig:
    return PpoConfig.model_validate({"ppo": {"roles": "shared"}, **sections})


def role_paths_of(actor: Path, reward: Path | None, critic: Path | None, reference: Path | None = None) -> RolePaths:
    def model(run: Path | None) -> str | None:
        return None if run is None else str(run / "model" if (run / "model").is_dir() else run)

    start = model(actor)
    assert start is not None
    return RolePaths(start, model(reference) or start, model(reward), model(critic))


def built(config: PpoConfig, paths: RolePaths, tokenizer: ChatTokenizer) -> tuple[SharedBackbone, Sources]:
    run: Any = SimpleNamespace(config=config, ranks=Ranks(0, 0, 1, torch.device("cpu")), say=lambda text: None)
    sources = find_sources(config, paths)
    return build_backbone(run, sources, paths, tokenizer).eval(), sources


def row_of() -> PackedRow:
    """Three sequences in one row, read at every token but the first of each, labels being the next ones."""
    return pack_sequences([EncodedSequence(np.asarray(ids, np.int32), np.arange(len(ids)) >= 1) for ids in SEQUENCES])


def ask(backbone: SharedBackbone, role: str, row: PackedRow) -> Tensor:
    output: Tensor = backbone(role, row.input_ids, row.position_ids, row.segments, row.positions)
    return output


@torch.no_grad()
def plain_logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return torch.cat([model(input_ids=torch.tensor([ids])).logits[0, :-1] for ids in SEQUENCES])


@torch.no_grad()
def plain_scores(folder: Path) -> Tensor:
    """Scores at the same tokens: a classifier reads the last token of what it is given, so each prefix is one input."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.config.pad_token_id = None
    prefixes = [ids[: end + 1] for ids in SEQUENCES for end in range(len(ids) - 1)]
    return torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids in prefixes])


@torch.no_grad()
def test_each_role_computes_what_its_run_exported(runs: dict[str, Path], chat_tokenizer: ChatTokenizer) -> None:
    paths = role_paths_of(runs["sft"], runs["reward"], runs["reward"])
    backbone, sources = built(shared_config(), paths, chat_tokenizer)
    assert not sources.apart
    row, logits = row_of(), plain_logits(runs["sft"] / "model")
    scores = plain_scores(runs["reward"] / "model")
    for role in ("critic", "actor", "reward", "reference", "actor", "critic"):  # whichever was asked before
        expected = logits if role in ("actor", "reference") else scores
        torch.testing.assert_close(ask(backbone, role, row), expected, rtol=1e-5, atol=1e-5)
    plain = plain_logits(runs["base"])
    assert float((logits - plain).abs().max()) > 0.1  # an adapter that is off would show


def test_the_dropout_an_adapter_was_trained_with_is_off(
    runs: dict[str, Path], tmp_path: Path, chat_tokenizer: ChatTokenizer
) -> None:
    sft = shutil.copytree(runs["sft"], tmp_path / "sft")
    for file in sft.rglob("adapter_config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_dropout": 0.5}))
    backbone, _ = built(shared_config(), role_paths_of(sft, runs["reward"], None), chat_tokenizer)
    row = row_of()
    resting = ask(backbone, "actor", row)
    torch.testing.assert_close(ask(backbone.train(), "actor", row), resting, rtol=0, atol=0)


def test_only_actor_and_critic_learn(runs: dict[str, Path], chat_tokenizer: ChatTokenizer) -> None:
    backbone, _ = built(shared_config(), role_paths_of(runs["sft"], runs["reward"], runs["reward"]), chat_tokenizer)
    row = row_of()
    (ask(backbone, "actor", row).square().mean() + ask(backbone, "critic", row).square().mean()).backward()
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert {backbone.role_of(name) for name in learning} == {"actor", "critic"}
    assert all(p.grad is None for name, p in backbone.named_parameters() if name not in learning)
    # 2 layers x 2 targets x (A, B) a role, and the critic's head
    assert len(learning) == 2 * 8 + 1


@pytest.mark.parametrize("role", ["actor", "critic"])
def test_recomputed_activations_are_those_of_the_role(
    runs: dict[str, Path], chat_tokenizer: ChatTokenizer, role: str
) -> None:
    """Both roles run forward before either runs backward; with checkpointing, layers are run again in between."""
    found = []
    for checkpointing in (False, True):
        config = shared_config(model={"gradient_checkpointing": checkpointing})
        paths = role_paths_of(runs["sft"], runs["reward"], runs["reward"])
        backbone, _ = built(config, paths, chat_tokenizer)
        backbone.train()
        row = row_of()
        outputs = {name: ask(backbone, name, row) for name in ("actor", "critic", "actor", "critic")}
        backbone.select(role)
        outputs[role].square().mean().backward()
        found.append({name: p.grad for name, p in backbone.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert {backbone.role_of(name) for name in found[0]} == {role}
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_reward_on_another_base_is_apart_and_the_critic_starts_at_zero(
    runs: dict[str, Path], chat_tokenizer: ChatTokenizer
) -> None:
    paths = role_paths_of(runs["sft"], runs["foreign"], runs["foreign"])
    config = shared_config(model={"lora": LORA.model_dump()})
    backbone, sources = built(config, paths, chat_tokenizer)
    assert "another base" in sources.apart["reward"]
    assert sorted(sources.apart) == ["reward"]
    assert "reward" not in backbone.heads
    assert not ask(backbone, "critic", row_of()).any()


@torch.no_grad()
def test_an_actor_without_an_adapter_is_the_backbone_and_its_reference_too(
    runs: dict[str, Path], chat_tokenizer: ChatTokenizer
) -> None:
    config = shared_config(model={"lora": LORA.model_dump()})
    backbone, sources = built(config, role_paths_of(runs["base"], runs["reward"], runs["reward"]), chat_tokenizer)
    assert not sources.apart
    row, expected = row_of(), plain_logits(runs["base"])
    for name, parameter in backbone.named_parameters():
        if backbone.role_of(name) == "actor":
            parameter.fill_(0.3)
    torch.testing.assert_close(ask(backbone, "reference", row), expected, rtol=1e-5, atol=1e-5)
    assert float((ask(backbone, "actor", row) - expected).abs().max()) > 0.1
    scores = plain_scores(runs["reward"] / "model")
    torch.testing.assert_close(ask(backbone, "reward", row), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("actor", "reward"), [("base", "reward"), ("sft", "foreign")])
def test_a_new_adapter_needs_its_settings(runs: dict[str, Path], actor: str, reward: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.lora"):
        find_sources(shared_config(), role_paths_of(runs[actor], runs[reward], runs[reward]))


def test_a_critic_of_another_base_is_refused_when_it_is_named(runs: dict[str, Path]) -> None:
    config = shared_config(critic={"path": str(runs["foreign"])}, model={"lora": LORA.model_dump()})
    with pytest.raises(ConfigError, match=r"critic\.path.*\n?.*another base"):
        find_sources(config, role_paths_of(runs["sft"], runs["reward"], runs["foreign"]))


def test_a_base_that_changed_is_refused(runs: dict[str, Path], tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    base = shutil.copytree(runs["base"], tmp_path / "base")
    run = make_lora_run(base, tmp_path / "run", chat_tokenizer, stage="sft", seed=4)
    weights = load_file(base / "model.safetensors")
    weights["gpt_neox.final_layer_norm.bias"] += 1e-3
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    folder = find_adapter(str(run / "model"))
    assert folder == run / "adapter"
    with pytest.raises(ArtifactError, match="not the base"):
        read_adapter(folder)


def test_zero_3_and_engines_of_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="zero_stage = 3"):
        shared_config(deepspeed={"zero_stage": 3})
    with pytest.raises(ValueError, match=r"critic\.deepspeed"):
        shared_config(critic={"deepspeed": {"zero_stage": 1}})
