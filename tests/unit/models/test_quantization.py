"""Four-bit bases: what is held, what is computed, what learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from unittest.mock import patch

import pytest
import torch
from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

from rlhf.config.sections import LoraSection
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape
from rlhf.errors import ConfigError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import count_parameters, load_causal_lm, load_scalar_model
from rlhf.models.quantization import dequantized_weights, require_quantizer
from rlhf.ops.segments import Segment, Segments
from tests.support.plain_weights import plain_weights

pytest.importorskip("bitsandbytes")
ROW = (torch.tensor([[5, 9, 300, 42]]), torch.arange(4)[None], Segments((Segment(0, 4),)), torch.arange(4))
# The 16 levels of NormalFloat4 (arXiv:2305.14314 appendix E), of a block's largest value.
NF4 = (-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626)
NF4 = (*NF4, 0.7230, 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A GPT-NeoX of width 64, which is one block of nf4."""
    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("wide")
    shape = TinySize(hidden=64, layers=2, heads=4, vocabulary=400, positions=64)
    GPTNeoXForCausalLM(polyglot_shape(shape, len(tiny_tokenizer))).save_pretrained(folder)
    return folder


def test_linear_layers_are_rounded_to_nf4_and_nothing_else_is(base: Path) -> None:
    rounded = dequantized_weights(load_causal_lm(str(base), quantize="4bit").model)
    plain = dict(load_causal_lm(str(base)).model.named_parameters())
    layers = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    assert set(rounded) == {f"gpt_neox.layers.{n}.{layer}.weight" for n in (0, 1) for layer in layers}
    blocks = plain["gpt_neox.layers.1.attention.dense.weight"].detach().reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    levels = torch.tensor(NF4)
    nearest = levels[(blocks / largest).unsqueeze(-1).sub(levels).abs().argmin(-1)] * largest
    found = rounded["gpt_neox.layers.1.attention.dense.weight"].reshape(-1, 64)
    # The largest values are themselves held in 8 bits (double quantisation), hence the tolerance.
    torch.testing.assert_close(found, nearest, rtol=0, atol=0.01 * float(largest.max()))
    assert dequantized_weights(load_causal_lm(str(base)).model) == {}


def test_it_computes_with_the_rounded_weights_and_counts_whole_ones(base: Path) -> None:
    held, plain = load_causal_lm(str(base), quantize="4bit"), load_causal_lm(str(base))
    assert count_parameters(held)[0] == count_parameters(plain)[0]
    unlike = (held.eval()(*ROW) - plain.eval()(*ROW)).abs().max()
    assert unlike > 1e-3
    plain.model.load_state_dict(dequantized_weights(held.model), strict=False)
    torch.testing.assert_close(held(*ROW), plain(*ROW), rtol=1e-5, atol=1e-5)


def test_adapters_learn_on_it_before_and_after_an_evaluation(base: Path) -> None:
    model = load_causal_lm(str(base), quantize="4bit")
    add_lora(model, LoraSection(rank=2, alpha=4))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float32 for parameter in trained)
    held = dequantized_weights(model.model.get_base_model())
    optimizer, labels, costs = torch.optim.SGD(trained, lr=1.0), torch.tensor([9, 300, 42, 7]), []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model.train()(*ROW), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        costs.append(float(loss.detach()))
        with torch.no_grad():  # left to itself, the CPU library packs weights here and loses the gradient
            evaluated = torch.nn.functional.cross_entropy(model.eval()(*ROW), labels)
            again = torch.nn.functional.cross_entropy(model.train()(*ROW), labels)
        torch.testing.assert_close(evaluated, again, rtol=1e-6, atol=1e-6)
    assert costs == sorted(costs, reverse=True)
    assert costs[2] < costs[1] - 1e-4
    after = dequantized_weights(model.model.get_base_model())
    assert all(torch.equal(after[name], held[name]) for name in held)
    assert len(held) == 8


@pytest.mark.parametrize("variant", ["none", "lora", "dora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plain_weights_are_whole_and_leave_the_packed_ones_alone(
    base: Path, variant: Literal["none", "lora", "dora"], dtype: str
) -> None:
    """A model of plain weights computes what the 4-bit one does with its adapters, and loads without a type of its
    own for them."""
    held = load_causal_lm(str(base), quantize="4bit", dtype=dtype)
    if variant != "none":
        add_lora(held, LoraSection(rank=2, alpha=4, variant=variant, targets=["query_key_value", "dense_4h_to_h"]))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in held.named_parameters():
                if "lora_A" in name or "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    before = {name: value.detach().clone() for name, value in held.named_parameters()}
    found = {name: value.clone() for name, value in plain_weights(held.model)}
    assert all(torch.equal(value, before[name]) for name, value in held.named_parameters())
    assert {value.dtype for value in found.values()} == {getattr(torch, dtype)}
    plain = load_causal_lm(str(base), dtype=dtype)
    assert {name: value.shape for name, value in plain.model.named_parameters()} == {
        name: value.shape for name, value in found.items()
    }
    plain.model.load_state_dict(found, strict=True)
    expected = held.eval()(*ROW).float()
    tolerance = 1e-5 if dtype == "float32" else 0.02 * float(expected.abs().max().detach())  # eight bits per operation
    torch.testing.assert_close(plain.eval()(*ROW).float(), expected, rtol=0, atol=tolerance)


def test_a_scalar_head_stays_whole(base: Path) -> None:
    model = load_scalar_model(str(base), quantize="4bit", new_head=True)
    assert model.model.score.weight.dtype == torch.float32


def test_a_missing_package_names_the_extra_that_has_it() -> None:
    with patch("rlhf.errors.find_spec", return_value=None):
        require_quantizer("none")
        with pytest.raises(
            ConfigError, match=r"pip install -e '\.\[gpu\]' in the checkout, or set model\.quantize=none"
        ):
            require_quantizer("4bit")
