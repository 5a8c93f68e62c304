"""How much a cache takes and what it cannot hold, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.errors import ModelError
from rlhf.models.loading import load_causal_lm
from rlhf.rollout import cache
from rlhf.rollout.cache import check_cacheable, check_memory, column_bytes


@pytest.fixture(scope="module", params=["tiny_neox", "tiny_llama"])
def model(request):
    return load_causal_lm(str(request.getfixturevalue(request.param))).model.eval()


def bytes_by_hand(model: Any) -> int:
    """Keys and values in 2 layers, 4 bytes each: 32 numbers, or 16 in Llama, whose heads share them in pairs."""
    return 2 * 2 * 4 * (16 if model.config.model_type == "llama" else 32)


def test_a_token_takes_its_keys_and_values_in_every_layer(model):
    assert column_bytes(model) == bytes_by_hand(model)


def test_what_just_fits_is_allowed_and_one_byte_more_is_not(model, monkeypatch):
    free = 10 * 25 * bytes_by_hand(model)
    monkeypatch.setattr(cache, "free_memory", lambda device: free)
    check_memory(model, 10, 25)
    monkeypatch.setattr(cache, "free_memory", lambda device: free - 1)
    with pytest.raises(ModelError, match=r"keys and values of 10 answers of 25 tokens") as refused:
        check_memory(model, 10, 25)
    assert refused.value.fix == "lower it to 9 or less"
    monkeypatch.setattr(cache, "free_memory", lambda device: 1)
    with pytest.raises(ModelError) as refused:
        check_memory(model, 10, 25)
    assert refused.value.fix == "lower it to 1 or less"  # there is no batch of 0


def test_an_answer_may_fill_the_sliding_window(model, monkeypatch):
    monkeypatch.setattr(model.config, "sliding_window", 24, raising=False)
    check_cacheable(model, 24)
    with pytest.raises(ModelError, match="25 tokens are longer than the model's sliding window of 24"):
        check_cacheable(model, 25)


def test_layers_that_keep_another_state_are_refused(model, monkeypatch):
    monkeypatch.setattr(model.config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    with pytest.raises(ModelError, match="layers of kind linear_attention are not supported"):
        check_cacheable(model, 8)
