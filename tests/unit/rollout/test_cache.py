"""How much a cache takes and what it cannot hold, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlhf.errors import ModelError
from rlhf.models.loading import load_causal_lm
from rlhf.rollout import capacity
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.cache import cache_argument
from rlhf.rollout.capacity import CacheBuckets, check_cacheable, column_bytes, default_slots, planned_slots, slots_for
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.sequences import ActiveSequence


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
    monkeypatch.setattr(capacity, "free_memory", lambda device: free)
    assert slots_for(model, 10, num_answers=12, columns=25) == 10
    monkeypatch.setattr(capacity, "free_memory", lambda device: free - 1)
    with pytest.raises(ModelError, match=r"keys and values of 10 answers of 25 tokens") as refused:
        slots_for(model, 10, num_answers=12, columns=25)
    assert refused.value.fix == "lower it to 9 or less"
    monkeypatch.setattr(capacity, "free_memory", lambda device: 1)
    with pytest.raises(ModelError) as refused:
        slots_for(model, 10, num_answers=12, columns=25)
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


def test_shapes_of_a_cache() -> None:
    exact, fixed = CacheBuckets.of(torch.device("cpu")), CacheBuckets.of(torch.device("cuda"))
    assert [exact.slots(count) for count in (1, 3, 64)] == [1, 3, 64]
    assert [fixed.slots(count) for count in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]
    assert [exact.columns(count) for count in (1, 256, 257)] == [1, 256, 257]
    assert [fixed.columns(count) for count in (1, 256, 257, 513)] == [256, 256, 512, 768]


@pytest.mark.parametrize(
    ("free", "expected"),
    [(2**20, 8), (16 * 2**20, 8), (31 * 2**20, 8), (32 * 2**20, 16), (100 * 2**20, 32), (2**40, 256)],
)
def test_a_default_batch_takes_half_of_what_is_free_on_a_gpu(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot takes 1 MiB here: 16 MiB free are 8 slots."""
    monkeypatch.setattr(capacity, "free_memory", lambda device: free)
    assert default_slots(torch.device("cuda"), 2**20) == expected
    assert default_slots(torch.device("cpu"), 2**20) == 64


def test_an_open_batch_is_planned_as_small_as_memory_may_make_it() -> None:
    assert [planned_slots(None, 500, on_gpu=on_gpu) for on_gpu in (False, True)] == [64, 8]
    assert planned_slots(None, 5, on_gpu=True) == 5
    assert planned_slots(32, 500, on_gpu=True) == planned_slots(32, 500, on_gpu=False) == 32


def test_no_more_slots_than_answers(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda device: 2**40)
    assert slots_for(model, None, num_answers=5, columns=25) == 5
    assert slots_for(model, None, num_answers=500, columns=25) == 64
    assert slots_for(model, 3, num_answers=5, columns=25) == 3


class NewerModel:
    """A model whose forward takes `cache` and refuses the older name."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def forward(self, cache: Any = None, **inputs: Any) -> Any:
        assert "past_key_values" not in inputs
        return self._model(past_key_values=cache, **inputs)

    __call__ = forward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Adapted:
    """A model behind a forward without names, as peft wraps it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def forward(self, *args: Any, **inputs: Any) -> Any:
        return self._model(*args, **inputs)

    __call__ = forward

    def get_base_model(self) -> Any:
        return self._model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def tokens_of(model: Any) -> list[int]:
    answer = ActiveSequence(np.array([5, 9, 3], np.int32), uniform_draws((3, 1), 6))
    decoder = Decoder(model, -1, num_slots=1)
    decoder.admit([answer])
    while decoder.busy:
        decoder.step()
    return answer.tokens


class OlderModel(NewerModel):
    """A model whose forward takes `past_key_values` and refuses the newer name."""

    def forward(self, past_key_values: Any = None, **inputs: Any) -> Any:
        assert "cache" not in inputs
        return self._model(past_key_values=past_key_values, **inputs)

    __call__ = forward


@pytest.mark.parametrize("wrap", [lambda model: model, Adapted])
def test_the_cache_travels_under_the_name_that_forward_has(model, wrap):
    older, newer = wrap(OlderModel(model)), wrap(NewerModel(model))
    assert (cache_argument(older), cache_argument(newer)) == ("past_key_values", "cache")
    assert tokens_of(older) == tokens_of(newer) == tokens_of(model)
