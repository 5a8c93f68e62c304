"""A model and its tokenizer agree on EOS, PAD and the number of tokens before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.config.sections import DeepSpeedSection, LanguageModelSection, ModelSection
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ModelError
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.train.models import _load_options, build_causal_lm, build_scalar_model

RANKS = Ranks(0, 0, 1, torch.device("cpu"))


@pytest.fixture
def folder(tiny_neox: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_neox, tmp_path / "base"))


def edit(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(known | values), encoding="utf-8")


def build(folder: Path, tokenizer: ChatTokenizer, **model: Any) -> PackedCausalLM:
    return build_causal_lm(
        str(folder), LanguageModelSection(**model), DeepSpeedSection(), RANKS, tokenizer, key="model.path"
    )


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("known", [5, [5, 6]])
def test_another_eos_in_the_model_is_refused(folder, chat_tokenizer, name, known):
    edit(folder, name, eos_token_id=known)
    with pytest.raises(ModelError, match="EOS is token") as caught:
        build(folder, chat_tokenizer)
    assert name in caught.value.problem
    assert "model.override_eos=true" in caught.value.fix


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_one_of_several_ends_may_be_the_tokenizers(folder, chat_tokenizer, name):
    edit(folder, name, eos_token_id=[5, chat_tokenizer.eos_id])
    assert build(folder, chat_tokenizer).model.config.eos_token_id == chat_tokenizer.eos_id


def test_the_tokenizers_eos_and_pad_are_taken_where_that_is_asked(folder, chat_tokenizer):
    edit(folder, "config.json", eos_token_id=5, pad_token_id=5)
    edit(folder, "generation_config.json", eos_token_id=6, pad_token_id=6)
    model = build(folder, chat_tokenizer, override_eos=True).model
    for holder in (model.config, model.generation_config):
        assert (holder.eos_token_id, holder.pad_token_id) == (chat_tokenizer.eos_id, chat_tokenizer.pad_id)


def test_a_reward_model_with_another_eos_is_refused_too(folder, chat_tokenizer):
    edit(folder, "config.json", eos_token_id=5)
    with pytest.raises(ModelError, match="EOS is token"):
        build_scalar_model(
            str(folder),
            LanguageModelSection(),
            DeepSpeedSection(),
            RANKS,
            chat_tokenizer,
            key="model.path",
            new_head_seed=1,
        )


def test_embeddings_and_head_grow_to_the_tokenizer(folder):
    """A token that the tokenizer knows and the model does not would index beyond the embeddings."""
    tokenizer = load_tokenizer(str(folder), "kullm")
    size = len(tokenizer.tokenizer)
    before = build(folder, tokenizer).model
    assert before.get_input_embeddings().num_embeddings == size
    old = before.get_input_embeddings().weight.detach().clone()

    tokenizer.tokenizer.add_tokens(["<추가>"])
    model = build(folder, tokenizer).model
    assert model.config.vocab_size == size + 1
    assert model.get_input_embeddings().num_embeddings == size + 1
    assert torch.equal(model.get_input_embeddings().weight[:size], old)
    logits = model(torch.tensor([[size]])).logits
    assert logits.shape == (1, 1, size + 1)
    assert torch.isfinite(logits).all()


def test_padded_embeddings_are_kept(folder):
    """A vocabulary padded to a round number in the model stays: shrinking it would drop trained rows."""
    tokenizer = load_tokenizer(str(folder), "kullm")
    model = build(folder, tokenizer).model
    model.resize_token_embeddings(len(tokenizer.tokenizer) + 16)
    model.save_pretrained(folder)
    assert build(folder, tokenizer).model.get_input_embeddings().num_embeddings == len(tokenizer.tokenizer) + 16


@pytest.mark.parametrize(
    ("device", "stage", "parked", "place"),
    [
        ("cuda:1", 0, False, "cuda:1"),
        ("cuda:1", 2, False, "cuda:1"),
        ("cuda:1", 2, True, "cpu"),  # page-locked where it is
        ("cuda:1", 3, False, "cpu"),  # partitioned as it is read
        ("cpu", 2, False, "cpu"),
    ],
)
def test_where_weights_are_read_to(device, stage, parked, place):
    ranks, section = Ranks(0, 0, 1, torch.device(device)), DeepSpeedSection(zero_stage=stage)
    assert _load_options(ModelSection(), section, ranks, parked=parked)["place"] == torch.device(place)


def test_weights_are_read_straight_to_their_place(tiny_neox):
    """The meta device stands for a GPU: whatever is read to it never took CPU memory."""
    model = load_causal_lm(str(tiny_neox), place=torch.device("meta"))
    assert {each.device.type for each in model.parameters()} == {"meta"}
    assert {each.device.type for each in load_causal_lm(str(tiny_neox)).parameters()} == {"cpu"}
