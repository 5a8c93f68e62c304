"""A stage that goes on from the adapter of another: what it computes at first, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import RewardConfig
from rlhf.config.sections import DeepSpeedSection, LanguageModelSection, LoraSection, ModelSection
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ArtifactError, ModelError
from rlhf.models.loading import PackedModel
from rlhf.train.models import build_causal_lm, build_critic, build_scalar_model, make_trainable
from tests.support.lora_runs import LORA, make_lora_run

RANKS = Ranks(0, 0, 1, torch.device("cpu"))
IDS = torch.tensor([[7, 30, 12, 99, 250, 4]])
DORA = LoraSection(rank=2, alpha=8, targets=["query_key_value"], variant="dora")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_neox: Path, chat_tokenizer: ChatTokenizer) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lora")
    return {
        "sft": make_lora_run(tiny_neox, folder / "sft", chat_tokenizer, stage="sft", seed=1),
        "dora": make_lora_run(tiny_neox, folder / "dora", chat_tokenizer, stage="sft", seed=2, lora=DORA),
        "reward": make_lora_run(tiny_neox, folder / "reward", chat_tokenizer, stage="reward", seed=3),
    }


def started(base: Path, tokenizer: ChatTokenizer, adapter: str, *, scalar: bool, lora: LoraSection = LORA) -> Any:
    """The Hugging Face model inside, ready to be trained."""
    model, section = LanguageModelSection(path=str(base), adapter=adapter, lora=lora), DeepSpeedSection()
    wrapped: PackedModel = (
        build_scalar_model(str(base), model, section, RANKS, tokenizer, key="model.path", new_head_seed=5)
        if scalar
        else build_causal_lm(str(base), model, section, RANKS, tokenizer, key="model.path")
    )
    make_trainable(wrapped, model, lambda text: None)
    return wrapped.model.eval()


@torch.no_grad()
def hidden_of(model: Any) -> Tensor:
    backbone = model.get_base_model() if hasattr(model, "get_base_model") else model
    states: Tensor = backbone.gpt_neox(input_ids=IDS).last_hidden_state
    return states


@pytest.mark.parametrize(("run", "lora"), [("sft", LORA), ("dora", DORA)])
@torch.no_grad()
def test_stage_1_starts_from_what_the_run_exported(
    runs: dict[str, Path], tiny_neox: Path, chat_tokenizer: ChatTokenizer, run: str, lora: LoraSection
) -> None:
    model = started(tiny_neox, chat_tokenizer, str(runs[run]), scalar=False, lora=lora)
    expected = AutoModelForCausalLM.from_pretrained(runs[run] / "model").eval()(input_ids=IDS).logits
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5)
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_stage_2_takes_the_layers_and_a_new_head(
    runs: dict[str, Path], tiny_neox: Path, chat_tokenizer: ChatTokenizer
) -> None:
    model = started(tiny_neox, chat_tokenizer, str(runs["sft"] / "adapter"), scalar=True)
    expected = hidden_of(AutoModelForCausalLM.from_pretrained(runs["sft"] / "model").eval())
    torch.testing.assert_close(hidden_of(model), expected, rtol=1e-5, atol=1e-5)
    head = model.get_base_model().score.modules_to_save["default"].weight
    generator = torch.Generator().manual_seed(5)  # seed and deviation as documented at initialise_head
    torch.testing.assert_close(head, torch.empty(1, 32).normal_(0, 1e-3 * 33**-0.5, generator=generator))


@torch.no_grad()
def test_stage_2_goes_on_with_the_head_of_a_reward(
    runs: dict[str, Path], tiny_neox: Path, chat_tokenizer: ChatTokenizer
) -> None:
    model = started(tiny_neox, chat_tokenizer, str(runs["reward"] / "model"), scalar=True)
    exported = AutoModelForSequenceClassification.from_pretrained(runs["reward"] / "model").eval()
    torch.testing.assert_close(model(input_ids=IDS).logits, exported(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [{"rank": 2}, {"alpha": 7}, {"targets": ["dense"]}, {"variant": "rslora"}])
def test_an_adapter_of_another_shape_is_refused(
    runs: dict[str, Path], tiny_neox: Path, chat_tokenizer: ChatTokenizer, change: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="another shape"):
        started(tiny_neox, chat_tokenizer, str(runs["sft"]), scalar=False, lora=LORA.model_copy(update=change))


def test_an_adapter_of_another_base_is_refused(
    runs: dict[str, Path], tiny_neox: Path, chat_tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_neox, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["gpt_neox.final_layer_norm.bias"] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was trained on"):
        started(other, chat_tokenizer, str(runs["sft"]), scalar=False)


def test_a_folder_without_an_adapter_is_refused(tiny_neox: Path, chat_tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ArtifactError, match="no adapter"):
        started(tiny_neox, chat_tokenizer, str(tiny_neox), scalar=False)


def test_an_adapter_needs_its_settings_and_its_stage() -> None:
    with pytest.raises(ValueError, match=r"model\.adapter.*needs model\.lora"):
        RewardConfig.model_validate({"model": {"adapter": "runs/sft"}})
    with pytest.raises(ValueError, match=r"actor\.path"):
        PpoConfig.model_validate({"model": {"adapter": "runs/sft", "lora": {}}})


@torch.no_grad()
def test_a_critic_on_a_language_model_starts_at_zero(tiny_neox: Path, chat_tokenizer: ChatTokenizer) -> None:
    critic = build_critic(str(tiny_neox), ModelSection(), DeepSpeedSection(), RANKS, chat_tokenizer)
    assert not critic.model(input_ids=IDS).logits.any()
