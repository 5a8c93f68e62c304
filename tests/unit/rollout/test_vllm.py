"""The vLLM backend's side of the protocol. The engine is a stand-in with vLLM's interface over a tiny model: no machine
without a GPU can run vLLM itself, and docs say that it was not measured."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlhf.config.sections import RolloutSection, SamplingSection
from rlhf.errors import ConfigError
from rlhf.models.loading import load_causal_lm
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm import VllmRollout, require_vllm, start_engine

EOS = 7


class StandIn:
    """vllm.LLM's interface; answers come from the transformers rollout under each request's own seed."""

    def __init__(self, model) -> None:
        self.model, self.calls = model, []

    def generate(self, prompts, sampling_params, use_tqdm=False):
        outputs = []
        for request, settings in zip(prompts, sampling_params, strict=True):
            ids = np.asarray(request["prompt_token_ids"], np.int32)
            drawn = TransformersRollout(self.model, settings["stop_token_ids"][0]).generate(
                [ids],
                [(settings["seed"],)],
                SamplingSection(max_new_tokens=settings["max_tokens"], temperature=settings["temperature"]),
            )
            steps = [
                {int(token): SimpleNamespace(logprob=float(value)), 399: SimpleNamespace(logprob=-99.0)}
                for token, value in zip(drawn.tokens[0], drawn.logprobs[0], strict=True)
            ]
            answer = SimpleNamespace(
                token_ids=drawn.tokens[0].tolist(),
                logprobs=steps,
                finish_reason="stop" if drawn.finished[0] else "length",
            )
            outputs.append(SimpleNamespace(outputs=[answer]))
        return outputs

    def sleep(self, level=1):
        self.calls.append(("sleep", level))

    def wake_up(self, tags=None):
        self.calls.append(("wake_up", *tags))

    def reset_prefix_cache(self):
        self.calls.append(("reset_prefix_cache",))

    def collective_rpc(self, method, args=()):
        loaded = SimpleNamespace(
            load_weights=lambda weights: self.calls.append(("load", *(name for name, _ in weights)))
        )
        method(SimpleNamespace(model_runner=SimpleNamespace(model=loaded)), *args)


@pytest.fixture
def rollout(tiny_neox):
    return VllmRollout(StandIn(load_causal_lm(str(tiny_neox)).model.eval()), EOS, lambda **settings: settings)


def test_tokens_logprobs_and_ends_follow_the_protocol(rollout, tiny_neox):
    prompts = [np.asarray(ids, np.int32) for ids in ([5, 9, 11], [40, 8], [300])]
    out = rollout.generate(prompts, [(1, row) for row in range(3)], SamplingSection(max_new_tokens=40, temperature=0.7))
    model = load_causal_lm(str(tiny_neox)).model
    for prompt, tokens, logprobs, finished in zip(prompts, out.tokens, out.logprobs, out.finished, strict=True):
        assert tokens.dtype == np.int32
        assert logprobs.dtype == np.float32
        ids = torch.from_numpy(np.concatenate([prompt, tokens])).long()[None]
        expected = (model(ids).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
        read = expected.gather(1, torch.from_numpy(tokens).long()[:, None])[:, 0].detach().numpy()
        np.testing.assert_allclose(logprobs, read, atol=1e-4)
        assert finished == (tokens[-1] == EOS)


def test_an_answer_depends_on_its_stream_alone(rollout):
    prompt = np.asarray([5, 9, 11], np.int32)
    settings = SamplingSection(max_new_tokens=8)
    together = rollout.generate([prompt] * 3, [(1, 0), (1, 1), (1, 0)], settings)
    alone = rollout.generate([prompt], [(1, 1)], settings)
    assert together.tokens[0].tolist() == together.tokens[2].tolist() != together.tokens[1].tolist()
    assert alone.tokens[0].tolist() == together.tokens[1].tolist()


def test_weights_go_in_before_the_cache_comes_back_and_old_prefixes_are_forgotten(rollout):
    rollout.rest()
    rollout.wake(iter([("a.weight", torch.zeros(1)), ("b.bias", torch.zeros(1))]))
    assert rollout.engine.calls == [
        ("sleep", 2),
        ("wake_up", "weights"),
        ("load", "a.weight", "b.bias"),
        ("wake_up", "kv_cache"),
        ("reset_prefix_cache",),
    ]


def test_vllm_is_never_replaced_in_silence():
    require_vllm("transformers")
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    with pytest.raises(ConfigError, match=r"rollout\.backend"):
        require_vllm("vllm")


@pytest.mark.parametrize("share", [0.2, 0.45])
def test_the_engine_gets_the_share_of_memory_that_is_configured(tiny_neox, monkeypatch, share):
    asked = {}

    def engine(**settings):
        asked.update(settings)
        return StandIn(None)

    monkeypatch.setitem(
        sys.modules, "vllm", SimpleNamespace(LLM=engine, SamplingParams=dict, __spec__=ModuleSpec("vllm", None))
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    started = start_engine(str(tiny_neox), RolloutSection(gpu_memory=share), dtype="bfloat16", max_length=64)
    assert (asked["gpu_memory_utilization"], asked["dtype"], asked["max_model_len"]) == (share, "bfloat16", 64)
    assert started.engine.calls == [("sleep", 2)]  # until the first rollout the memory is the trainer's


@pytest.mark.parametrize(("top_k", "stop", "wanted"), [(0, [], (-1, None)), (20, ["끝", "\n\n"], (20, ["끝", "\n\n"]))])
def test_sampling_settings_reach_the_engine(rollout, top_k, stop, wanted):
    """vLLM keeps all tokens at top_k -1, and takes None for no stop strings."""
    sampling = SamplingSection(max_new_tokens=9, temperature=0.7, top_k=top_k, top_p=0.9, stop=stop)
    settings = rollout._settings((17, 3), sampling)
    assert settings.pop("seed") == np.random.default_rng((17, 3)).integers(2**31)
    assert settings == {
        "max_tokens": 9,
        "temperature": 0.7,
        "top_k": wanted[0],
        "top_p": 0.9,
        "logprobs": 0,
        "stop": wanted[1],
        "stop_token_ids": [EOS],
        "ignore_eos": False,
        "skip_special_tokens": False,
    }
