"""A model that both transformers and the toy engine can run: a GPT-NeoX whose next token depends on the last alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM

from rlhf.data.tokenizer import ChatTokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape
from tests.conftest import VOCABULARY, _saved
from tests.support.launcher import REPOSITORY

SHAPE = TinySize(hidden=32, layers=1, heads=4, vocabulary=VOCABULARY, positions=256)


def make_bigram_model(folder: Path, tokenizer: ChatTokenizer) -> Path:
    """A model folder as a stage leaves it. Its only layer adds nothing, so that logits follow from the token alone;
    table.npy holds them for each token, [V, V], by plain transformers."""
    _saved(GPTNeoXForCausalLM, polyglot_shape(SHAPE, len(tokenizer.tokenizer)), folder, tokenizer.tokenizer, seed=6)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        for block in model.gpt_neox.layers:
            for part in (block.attention.dense, block.mlp.dense_4h_to_h):
                part.weight.zero_()
                part.bias.zero_()
        ids = torch.arange(len(tokenizer.tokenizer))[:, None]
        np.save(folder / "table.npy", model(ids).logits[:, -1].numpy())
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def toy_python(folder: Path) -> Path:
    """A program that stands for the Python of an engine's environment: it starts the toy engine, not the server."""
    path = folder / "python"
    toy = REPOSITORY / "tests" / "support" / "toy_engine.py"
    path.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {toy} "$@"\n')
    path.chmod(0o755)
    return path
