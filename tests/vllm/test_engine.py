"""A real engine against the transformers rollout and a full forward pass of plain transformers, in float32."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config.sections import LoraSection, SamplingSection
from rlhf.errors import EngineError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import load_causal_lm
from rlhf.ops.logprobs import sampling_logits, token_logprobs
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm.weights import checkpoint_tensors, weight_groups
from tests.vllm.conftest import started

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
PROMPTS = [np.asarray(ids, np.int32) for ids in ([5, 9, 11], [40, 8], [300, 7, 8, 9, 200, 31], [77])]
STREAMS = [(1, 2, row, 0) for row in range(4)]


@pytest.fixture(scope="session")
def plain(engine_model):
    return AutoModelForCausalLM.from_pretrained(engine_model).eval()


def sampling(**options):
    return SamplingSection(**{"max_new_tokens": 16, **options})


def expected_scores(model, rows):
    with torch.no_grad():
        return [
            token_logprobs(model(torch.from_numpy(row).long()[None]).logits[0, :-1], torch.from_numpy(row[1:]).long())
            for row in rows
        ]


def numbers(tensors):
    return [each.numpy() for each in tensors]


def test_log_probabilities_are_those_of_a_full_forward(engine, plain):
    assert engine.check(numbers(expected_scores(plain, engine.check_rows()))) < 1e-4


def test_greedy_answers_are_those_of_the_transformers_rollout(engine, policy, tokenizer):
    theirs = engine.generate(PROMPTS, STREAMS, sampling(temperature=0))
    ours = TransformersRollout(policy.model, tokenizer.eos_id, tokenizer.text).generate(
        PROMPTS, STREAMS, sampling(temperature=0)
    )
    assert [each.tolist() for each in theirs.tokens] == [each.tolist() for each in ours.tokens]
    assert theirs.finished == ours.finished
    np.testing.assert_allclose(np.concatenate(theirs.logprobs), np.concatenate(ours.logprobs), atol=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.6}, {"temperature": 1.3, "top_k": 20, "top_p": 0.8}]
)
def test_log_probabilities_are_of_the_distribution_that_was_asked_for(engine, plain, options):
    settings = sampling(**options)
    drawn = engine.generate(PROMPTS, STREAMS, settings)
    for prompt, tokens, logprobs in zip(PROMPTS, drawn.tokens, drawn.logprobs, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, tokens])).long()[None]
        with torch.no_grad():
            logits = plain(ids).logits[0, len(prompt) - 1 : -1]
        kept = sampling_logits(
            logits, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
        ).log_softmax(-1)
        expected = kept.gather(1, torch.from_numpy(tokens).long()[:, None])[:, 0]
        np.testing.assert_allclose(logprobs, expected.numpy(), atol=1e-3)  # kernels of another library


def test_first_tokens_are_drawn_as_often_as_they_are_likely(engine, plain):
    """4,000 draws of one token: each of the likeliest ten within 4 standard deviations of its share."""
    count = 4000
    drawn = engine.generate([PROMPTS[0]] * count, [(5, 5, k) for k in range(count)], sampling(max_new_tokens=1))
    with torch.no_grad():
        shares = plain(torch.from_numpy(PROMPTS[0]).long()[None]).logits[0, -1].softmax(-1)
    counts = np.bincount([int(tokens[0]) for tokens in drawn.tokens], minlength=len(shares))
    for token in shares.topk(10).indices.tolist():
        share = float(shares[token])
        assert abs(counts[token] - count * share) < 4 * (count * share * (1 - share)) ** 0.5 + 1


def test_an_answer_depends_on_neither_its_batch_nor_its_request(engine):
    asked = [PROMPTS[0]] * 3 + [PROMPTS[2]] * 2
    streams = [(1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 7, 0), (1, 7, 1)]
    together = engine.generate(asked, streams, sampling())
    for item, (prompt, stream) in enumerate(zip(asked, streams, strict=True)):
        alone = engine.generate([prompt], [stream], sampling())
        assert alone.tokens[0].tolist() == together.tokens[item].tolist()
    assert len({tuple(each.tolist()) for each in together.tokens}) == 5


def test_stop_texts_and_several_eos_end_an_answer_at_the_same_token(engine, policy, tokenizer):
    free = engine.generate(PROMPTS, STREAMS, sampling(temperature=0))
    text = tokenizer.text(free.tokens[0].tolist()[3:5])
    settings = sampling(temperature=0, stop=[text])
    theirs = engine.generate(PROMPTS, STREAMS, settings)
    ours = TransformersRollout(policy.model, tokenizer.eos_id, tokenizer.text).generate(PROMPTS, STREAMS, settings)
    assert [each.tolist() for each in theirs.tokens] == [each.tolist() for each in ours.tokens]
    assert theirs.finished == ours.finished
    assert theirs.finished[0]
    assert len(theirs.tokens[0]) < len(free.tokens[0])
    before, third = engine.eos, int(free.tokens[1][2])
    engine.eos = (tokenizer.eos_id, third)
    try:
        ended = engine.generate(PROMPTS[1:2], STREAMS[1:2], sampling(temperature=0))
    finally:
        engine.eos = before
    first = free.tokens[1].tolist().index(third)
    assert ended.tokens[0].tolist() == free.tokens[1].tolist()[: first + 1]
    assert ended.finished == [True]


def test_a_push_replaces_every_weight(engine, policy, engine_model, plain):
    """Of other weights, and of an adapter; then the policy's own again. Small buckets: many to a push."""
    changed = load_causal_lm(str(engine_model)).eval()
    add_lora(changed, LoraSection(rank=2))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    whole, engine.bucket_bytes = engine.bucket_bytes, 20_000
    try:
        assert engine.push(changed.model) is None
        merged = changed.model.merge_and_unload()
        assert engine.check(numbers(expected_scores(Plain(merged), engine.check_rows()))) < 1e-4
        with pytest.raises(EngineError, match="differ from the trainer's"):
            engine.check(numbers(expected_scores(plain, engine.check_rows())))
    finally:
        engine.bucket_bytes = whole
        assert engine.push(policy.model) is None
    assert engine.check(numbers(expected_scores(plain, engine.check_rows()))) < 1e-4


class Plain:
    """A packed model's weights in a model of plain transformers."""

    def __init__(self, model) -> None:
        self._model = AutoModelForCausalLM.from_config(model.config, attn_implementation="eager").eval()
        self._model.load_state_dict(dict(model.state_dict()))

    def __call__(self, ids):
        return self._model(ids)


@pytest.mark.parametrize("name", ["embed_out.weight", "gpt_neox.layers.1.attention.dense.bias"])
@pytest.mark.parametrize("how", ["withheld", "altered"])
def test_one_wrong_tensor_is_found_by_the_check(
    engine_model, tokenizer, vllm_python, policy, plain, tmp_path, monkeypatch, name, how
):
    def sent(model, group, dtype):
        tensors = checkpoint_tensors(model, group, dtype)
        if name in tensors and how == "withheld":
            return {}
        return {each: value * (0.5 if each == name else 1.0) for each, value in tensors.items()}

    monkeypatch.setattr("rlhf.rollout.vllm.push.checkpoint_tensors", sent)
    assert any(name in checkpoint_tensors(policy.model, group, torch.float32) for group in weight_groups(policy.model))
    rollout = started(engine_model, tokenizer, vllm_python, tmp_path)
    try:
        assert rollout.push(policy.model) is None
        with pytest.raises(EngineError, match=r"differ from the trainer's by .* a weight is missing or wrong there"):
            rollout.check(numbers(expected_scores(plain, rollout.check_rows())))
    finally:
        rollout.close()


def test_an_engine_killed_in_mid_rollout_says_so(engine_model, tokenizer, vllm_python, policy, tmp_path):
    rollout = started(engine_model, tokenizer, vllm_python, tmp_path)
    try:
        assert rollout.push(policy.model) is None
        many = 4000
        pending = rollout.start([PROMPTS[0]] * many, [(1, 1, k) for k in range(many)], sampling())
        threading.Timer(0.5, os.kill, (rollout.process.pid, signal.SIGKILL)).start()
        with pytest.raises(EngineError, match="ended with signal SIGKILL"):
            pending.result()
    finally:
        rollout.close()


def test_a_slow_engine_is_given_up(engine_model, tokenizer, vllm_python, policy, tmp_path):
    rollout = started(engine_model, tokenizer, vllm_python, tmp_path, timeout_s=3)
    try:
        assert rollout.push(policy.model) is None
        many = 20000
        with pytest.raises(EngineError, match=r"rollout\.vllm\.timeout_s: .* within 3 s"):
            rollout.generate([PROMPTS[0]] * many, [(1, 1, k) for k in range(many)], sampling())
    finally:
        rollout.close()
