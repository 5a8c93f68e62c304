"""Tiny random models of every architecture that the matrix trains, as a folder of the hub has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Exaone4Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape

POSITIONS = 256
LOUD = 30.0  # added to the final norm: hidden states several times as large as those of Gemma 3 270M (6.6)
ALIKE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": POSITIONS}
GROUPED = {**ALIKE, "num_key_value_heads": 2, "intermediate_size": 64}


def gpt_neox(words: int) -> PreTrainedConfig:
    return polyglot_shape(TinySize(hidden=32, layers=2, heads=4, vocabulary=words, positions=POSITIONS), words)


def gemma3(words: int) -> PreTrainedConfig:
    """Tied; one layer with a sliding window and one without; ten rows of embeddings for each token in use, as 262,144
    words have for a tokenizer of one language."""
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=128, layer_types=kinds, vocab_size=10 * words)


def gpt2(words: int) -> PreTrainedConfig:
    return GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS, vocab_size=words)


def exaone4(words: int) -> PreTrainedConfig:
    kinds = ["sliding_attention", "full_attention"]
    return Exaone4Config(**GROUPED, sliding_window=128, layer_types=kinds, vocab_size=words, tie_word_embeddings=True)


def _plain(kind: Callable[..., PreTrainedConfig], **more: Any) -> Callable[[int], PreTrainedConfig]:
    return lambda words: kind(**GROUPED, vocab_size=words, **more)


ARCHITECTURES: dict[str, Callable[[int], PreTrainedConfig]] = {
    "gpt_neox": gpt_neox,
    "llama": _plain(LlamaConfig, tie_word_embeddings=False),
    "qwen2": _plain(Qwen2Config, tie_word_embeddings=True),
    "qwen3": _plain(Qwen3Config, head_dim=16, tie_word_embeddings=True),
    "gemma3": gemma3,
    "gpt2": gpt2,
    "mistral": _plain(MistralConfig, sliding_window=128),
    "phi": _plain(PhiConfig, partial_rotary_factor=0.5),
    "exaone4": exaone4,
}


def save_model(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Random weights, larger than transformers' start values so that a wrong mask shows, with a loud final norm."""
    config = ARCHITECTURES[name](len(tokenizer))
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1, generator=generator)
        final = [module for each, module in model.named_modules() if "norm" in each or "ln_f" in each][-1]
        final.weight.add_(LOUD)  # type: ignore[operator, union-attr]
        model.get_output_embeddings().weight.div_(LOUD)  # logits of the usual size
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
