"""A base that never learnt the token that ends an answer is found by the rows of its head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf.config.sections import LoraSection
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.train.end_token import end_token_line, tokens_alike


def test_rows_that_point_one_way_are_counted_whatever_their_length() -> None:
    """Of six rows two point the way of row 1 within a cosine of .95 (1 / 1.0512 = .951; 1 / 1.0607 is not)."""
    rows = torch.tensor([[3.0, 0.0], [1.0, 0.0], [1.0, 0.324], [1.0, 0.354], [0.0, 1.0], [-2.0, 0.0]])
    assert tokens_alike(rows, 1) == 2
    assert tokens_alike(rows.bfloat16(), 4) == 0


@pytest.fixture
def model(tiny_neox: Path) -> PackedCausalLM:
    return load_causal_lm(str(tiny_neox))


def untrain(model: PackedCausalLM, tokens: range) -> None:
    """Rows as one mean and a little noise, as unused tokens of a large vocabulary have them."""
    rows = model.model.get_output_embeddings().weight
    with torch.no_grad():
        rows[tokens.start : tokens.stop] = torch.randn(rows.shape[1]) + 0.05 * torch.randn(len(tokens), rows.shape[1])


def test_a_frozen_head_that_cannot_tell_the_end_is_named(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    add_lora(model, LoraSection(rank=2))
    line = end_token_line(model, 25, "<end_of_turn>")
    assert line.startswith("warning: <end_of_turn> (token 25), which ends an answer, has nearly the same row")
    assert "as 19 other tokens" in line
    assert end_token_line(model, 3, "<eos>") == ""  # a token that the base knows


def test_a_head_that_is_trained_can_learn_it(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    assert end_token_line(model, 25, "<end_of_turn>") == ""


def test_a_head_with_an_adapter_of_its_own_can_learn_it(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    add_lora(model, LoraSection(rank=2, targets=["lm_head"]))
    assert end_token_line(model, 25, "<end_of_turn>") == ""
