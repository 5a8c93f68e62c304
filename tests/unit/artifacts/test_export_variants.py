"""What is exported is what was trained, for every kind of adapter, base and normalisation of scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM

from rlhf.artifacts.export import check_export, load_base, save_model, with_adapter
from rlhf.config.sections import LoraSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow, pack_sequences
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedModel, load_causal_lm, load_scalar_model

IDS = torch.tensor([5, 9, 300, 42, 7, 250, 3, 77], dtype=torch.int32)


def packed_row() -> PackedRow:
    return pack_sequences([EncodedSequence(IDS.numpy(), torch.ones(8, dtype=torch.bool).numpy())])


@torch.no_grad()
def output(model: PackedModel) -> torch.Tensor:
    row = packed_row()
    return model.eval()(row.input_ids, row.position_ids, row.segments, row.positions)


@torch.no_grad()
def trained(model: PackedModel) -> PackedModel:
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def export(live: PackedModel, folder: Path, tokenizer: ChatTokenizer, base: Path, **options) -> Path:
    weights = {name: tensor.detach().clone() for name, tensor in live.model.state_dict().items()}
    save_model(live, weights, folder / "model", tokenizer, dtype="float32", base_path=str(base), **options)
    return folder / "model"


@pytest.mark.parametrize("variant", ["dora", "rslora"])
def test_a_variant_is_merged_exactly(variant, tiny_neox, chat_tokenizer, tmp_path) -> None:
    live = load_causal_lm(str(tiny_neox))
    add_lora(live, LoraSection(rank=4, alpha=8, variant=variant))
    expected = output(trained(live))
    folder = export(live, tmp_path, chat_tokenizer, tiny_neox)
    assert check_export(folder, packed_row(), expected, scalar=False, dtype="float32") <= 1e-4
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS[None].long()).logits[0, :-1], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def wide(tmp_path_factory, chat_tokenizer) -> Path:
    """A GPT-NeoX of width 64, which is one block of nf4."""
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("wide")
    shape = TinySize(hidden=64, layers=2, heads=4, vocabulary=400, positions=64)
    GPTNeoXForCausalLM(polyglot_shape(shape, len(chat_tokenizer.tokenizer))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_a_four_bit_base_is_exported_as_it_was_rounded(variant, wide, chat_tokenizer, tmp_path) -> None:
    pytest.importorskip("bitsandbytes")
    live = load_causal_lm(str(wide), quantize="4bit")
    add_lora(live, LoraSection(rank=2, alpha=4, variant=variant))
    expected = output(trained(live))
    folder = export(live, tmp_path, chat_tokenizer, wide)
    assert check_export(folder, packed_row(), expected, scalar=False, dtype="float32") <= 1e-5
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    adapter = tmp_path / "adapter"
    assert json.loads((adapter / "base.json").read_text())["quantize"] == "4bit"
    again = output(with_adapter(load_base(adapter, scalar=False, dtype="float32"), adapter))
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)
    unrounded = load_causal_lm(str(wide))
    with_adapter(unrounded, adapter)
    assert (output(unrounded) - expected).abs().max() > 1e-3  # the rounding is what was trained on


@pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
@pytest.mark.parametrize("with_lora", [False, True])
def test_scores_are_scaled_and_then_shifted(family, with_lora, request, chat_tokenizer, tmp_path) -> None:
    """Also on a base whose scores were shifted before (here in its configuration, by 3)."""
    base = request.getfixturevalue(family)
    live = load_scalar_model(str(base), new_head=True)
    live.model.config.score_shift = 3.0
    if with_lora:
        add_lora(live, LoraSection(rank=2, alpha=8))
    expected = output(trained(live)) * 0.5 - 2.0
    folder = export(live, tmp_path, chat_tokenizer, base, score_scale=0.5, score_offset=-2.0)
    assert check_export(folder, packed_row(), expected, scalar=True, dtype="float32") <= 1e-5
