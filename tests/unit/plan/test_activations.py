"""What autograd really keeps, counted by its own hooks, against the formulae."""

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf.config.sections import LanguageModelSection, LoraSection, ModelSection
from rlhf.models.adapters import add_lora
from rlhf.models.head import LossRequest, install_head
from rlhf.models.loading import ATTENTION, PackedCausalLM, unwrap_peft
from rlhf.ops.segments import Segments
from rlhf.plan.activations import cache_bytes, head_bytes, layer_bytes
from rlhf.plan.shapes import neox, shape_of

TOKENS, WIDTH = 64, 64
GATED = {LlamaForCausalLM: LlamaConfig, Qwen3ForCausalLM: Qwen3Config, Gemma3ForCausalLM: Gemma3TextConfig}


def config_of(kind, layers):
    sizes = {"vocab_size": 50, "hidden_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": 4}
    if kind is GPTNeoXForCausalLM:
        extra = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "intermediate_size": 256}
        return GPTNeoXConfig(**sizes, **extra)
    head = {} if kind is LlamaForCausalLM else {"head_dim": 16, "pad_token_id": 0}
    return GATED[kind](**sizes, **head, intermediate_size=160, num_key_value_heads=2)


def kept_bytes(kind, layers, lora, dtype=torch.float32):
    """Bytes of all tensors that a forward pass leaves for the backward pass, weights left out."""
    torch.manual_seed(0)
    model = kind(config_of(kind, layers))
    model.set_attn_implementation(ATTENTION["sdpa"])
    wrapped = PackedCausalLM(model)
    if lora is not None:
        wrapped.requires_grad_(False)
        add_lora(wrapped, lora)
    wrapped.to(dtype)
    install_head(unwrap_peft(wrapped.model), "chunked")
    own = {parameter.untyped_storage().data_ptr() for parameter in wrapped.parameters()}
    storages, alive = {}, []

    def pack(tensor):
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids, places = torch.arange(TOKENS)[None] % 50, torch.arange(TOKENS // 2).repeat(2)[None]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = wrapped(
            ids, places, Segments.of_lengths([TOKENS // 2] * 2), torch.arange(TOKENS),
            LossRequest(ids[0], torch.ones(TOKENS), torch.tensor(1.0)),
        )  # fmt: skip
    assert output.loss.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("kind", [GPTNeoXForCausalLM, *GATED])
@pytest.mark.parametrize(
    "lora", [None, LoraSection(rank=4), LoraSection(rank=4, dropout=0.1)], ids=["all", "lora", "dropout"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_layer_keeps_what_the_formula_says(kind, lora, dtype, tmp_path):
    config_of(kind, 2).save_pretrained(tmp_path)
    found = kept_bytes(kind, 3, lora, dtype) - kept_bytes(kind, 2, lora, dtype)

    planned = layer_bytes(shape_of(str(tmp_path)), ModelSection(lora=lora), dtype.itemsize) * TOKENS

    assert planned == pytest.approx(found, rel=0.03)  # rotary tables and boundaries of segments are left out


def test_one_adapted_module_keeps_its_own_input_alone():
    shape, lora = neox("x", 2, WIDTH, 4), LoraSection(rank=4, targets=["dense_4h_to_h"])
    # 18 widths when all learns, less the inputs of query_key_value, dense and dense_h_to_4h; 4 of the adapter
    entries = 15 * WIDTH + 4

    assert layer_bytes(shape, ModelSection(lora=lora), 4) == entries * 4 + 4 * (4 + 4)


def test_the_cache_of_a_known_model():
    # 12.8B in bfloat16: 2 x 40 layers x 5120 x 2 bytes = 0.82 MB a token
    assert cache_bytes(neox("x", 40, 5120, 40), 2, 1, 1) == 819_200


def test_whole_logits_cost_more_than_chunks():
    shape = neox("x", 2, WIDTH, 4)
    chunked = head_bytes(shape, ModelSection(), 4, 4096, "cpu", kind="loss")
    whole = head_bytes(shape, LanguageModelSection(head="whole"), 4, 4096, "cpu", kind="loss")

    assert whole - 4096 * 30080 * 16 == 2 * 4096 * WIDTH * 4
    assert chunked < whole / 10


def test_probabilities_are_kept_while_they_are_few():
    shape, model = neox("x", 2, WIDTH, 4), ModelSection(lora=LoraSection())
    few, many = (head_bytes(shape, model, 4, rows, "cpu", kind="logprobs") for rows in (2000, 4000))

    assert few > 2000 * 30080 * 4  # 60.2e6 entries: below 2**26
    assert many < 4000 * 30080  # 120.3e6: each chunk is computed twice instead
