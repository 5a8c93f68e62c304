"""Packed weights: the same numbers, for as long as they are asked for, and only where they apply."""

from pathlib import Path

import pytest
import torch

from rlhf.models import packed_linears as module
from rlhf.models.head import install_head
from rlhf.models.loading import load_causal_lm
from rlhf.models.packed_linears import packed_linears

IDS = torch.tensor([[5, 9, 11, 7, 300, 21, 40, 8, 3], [8, 2, 30, 7, 12, 44, 9, 1, 6]])


@pytest.fixture
def model(tiny_neox: Path):
    causal = load_causal_lm(str(tiny_neox)).model.eval()
    install_head(causal, "chunked")
    return causal


def replaced(model: torch.nn.Module) -> int:
    return sum("forward" in vars(layer) for layer in model.modules())


@torch.no_grad()
def test_logits_are_the_same_and_the_layers_come_back(model):
    plain = model(input_ids=IDS).logits
    with packed_linears(model):
        assert replaced(model) == 2 * 4 + 1  # four a layer, and the head
        torch.testing.assert_close(model(input_ids=IDS).logits, plain, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(input_ids=IDS[:1, :1]).logits, plain[:1, :1], rtol=1e-5, atol=1e-5)
    assert replaced(model) == 0
    torch.testing.assert_close(model(input_ids=IDS).logits, plain, rtol=0, atol=0)


@torch.no_grad()
def test_the_next_time_reads_the_new_weights(model):
    with packed_linears(model):
        old = model(input_ids=IDS).logits
    model.get_output_embeddings().weight.mul_(2)
    with packed_linears(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, 2 * old, rtol=1e-5, atol=1e-5)


def test_the_layers_come_back_after_an_error_too(model):
    with pytest.raises(RuntimeError), packed_linears(model):
        raise RuntimeError
    assert replaced(model) == 0


def test_what_is_large_or_not_float32_stays_as_it_is(model, monkeypatch):
    with packed_linears(model.bfloat16()):
        assert replaced(model) == 0
    size = sum(layer.weight.nbytes for layer in model.float().modules() if isinstance(layer, torch.nn.Linear))
    for limit, count in ((size, 9), (size - 1, 0)):
        monkeypatch.setattr(module, "LARGEST_BYTES", limit)
        with packed_linears(model):
            assert replaced(model) == count
