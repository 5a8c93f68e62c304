"""A tiny model that goes on for ever, for tests of what serves it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape


def save_endless_model(folder: Path, tokenizer_folder: Path) -> None:
    """A model of 4,096 positions that never says EOS, with its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(3)
    size = TinySize(hidden=32, layers=2, heads=4, vocabulary=400, positions=4096)
    model = GPTNeoXForCausalLM(polyglot_shape(size, len(tokenizer)))
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 0.3)
        model.gpt_neox.final_layer_norm.bias.fill_(1.0)
        model.get_output_embeddings().weight[tokenizer.eos_token_id].fill_(-3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
