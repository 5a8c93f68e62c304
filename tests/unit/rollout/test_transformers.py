"""Rollouts against full forwards of transformers' eager attention, and against draws made here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from rlhf.config.sections import SamplingSection
from rlhf.errors import ConfigError, ModelError
from rlhf.models.loading import ATTENTION, load_causal_lm
from rlhf.rollout import capacity
from rlhf.rollout.base import Rollouts, uniform_draws
from rlhf.rollout.transformers import TransformersRollout

NEVER = -1  # an EOS that no token is
LIMIT = 10
STREAMS = [(17, step, row, 0) for step in (0, 1) for row in range(5)]


def prompts_of(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(2, 400, length).astype(np.int32) for length in lengths]


PROMPTS = prompts_of(7, 1, 12, 4, 4, 9, 2, 15, 3, 5)


@pytest.fixture(scope="module", params=["tiny_neox", "tiny_llama"])
def models(request):
    """(the model under our attention, the same under transformers' eager attention)."""
    folder = request.getfixturevalue(request.param)
    return load_causal_lm(str(folder)).model.eval(), AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()


def sampling(**settings) -> SamplingSection:
    return SamplingSection(**{"max_new_tokens": LIMIT, "batch_size": 64} | settings)


def rollout(model, settings: SamplingSection, prompts=PROMPTS, streams=STREAMS, eos: int = NEVER) -> Rollouts:
    return TransformersRollout(model, eos).generate(prompts, streams, settings)


def expected_distribution(logits: np.ndarray, settings: SamplingSection) -> np.ndarray:
    """Probabilities by the textbook: temperature, then the k largest, then the fewest that reach top_p."""
    scaled = logits.astype(np.float64) / settings.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    kept = order[: settings.top_k] if settings.top_k else order
    mass, nucleus = 0.0, []
    total = probabilities[kept].sum()
    for token in kept:
        nucleus.append(token)
        mass += probabilities[token] / total
        if mass >= settings.top_p:
            break
    result = np.zeros_like(probabilities)
    result[nucleus] = probabilities[nucleus]
    return result / result.sum()


@torch.no_grad()
def full_logits(reference, prompt: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """[len(answer), V]: what the model says before each token of the answer, in one forward without a cache."""
    ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))
    return reference(ids[None]).logits[0, len(prompt) - 1 : -1].numpy()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 0.7, "top_k": 40, "top_p": 0.6},
    ],
)
def test_tokens_and_logprobs_are_those_of_a_full_forward(models, settings):
    ours, reference = models
    settings = sampling(**settings)
    out = rollout(ours, settings)
    for prompt, stream, tokens, logprobs in zip(PROMPTS, STREAMS, out.tokens, out.logprobs, strict=True):
        uniform = np.random.default_rng(stream).random(LIMIT)
        assert len(tokens) == len(logprobs) == LIMIT
        for logits, draw, token, logprob in zip(
            full_logits(reference, prompt, tokens), uniform, tokens, logprobs, strict=True
        ):
            probabilities = expected_distribution(logits, settings)
            assert logprob == pytest.approx(np.log(probabilities[token]), abs=1e-5)
            assert token == np.searchsorted(np.cumsum(probabilities), draw, side="right")
    assert not any(out.finished)
    assert {tokens.dtype for tokens in out.tokens} == {np.dtype(np.int32)}
    assert {values.dtype for values in out.logprobs} == {np.dtype(np.float32)}


def test_greedy_is_the_argmax_of_a_full_forward(models):
    ours, reference = models
    out = rollout(ours, sampling(temperature=0))
    for prompt, tokens, logprobs in zip(PROMPTS, out.tokens, out.logprobs, strict=True):
        logits = torch.from_numpy(full_logits(reference, prompt, tokens)).double()
        assert tokens.tolist() == logits.argmax(-1).tolist()
        expected = logits.log_softmax(-1).max(-1).values
        torch.testing.assert_close(torch.from_numpy(logprobs).double(), expected, rtol=0, atol=1e-5)


def assert_same(left: Rollouts, right: Rollouts) -> None:
    assert [tokens.tolist() for tokens in left.tokens] == [tokens.tolist() for tokens in right.tokens]
    assert left.finished == right.finished
    for mine, other in zip(left.logprobs, right.logprobs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)


def common_token(out: Rollouts) -> int:
    """The token that stops most answers, at different places."""
    return max(range(400), key=lambda token: len({t.tolist().index(token) for t in out.tokens if token in t}))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_do_not_depend_on_batch_size_or_padding(models, batch_size):
    settings = sampling(temperature=0.8)
    together = rollout(models[0], settings)
    eos = common_token(together)
    together = rollout(models[0], settings, eos=eos)
    assert_same(rollout(models[0], sampling(temperature=0.8, batch_size=batch_size), eos=eos), together)


def test_answers_do_not_depend_on_order(models):
    settings = sampling(temperature=0.8, batch_size=4)
    forwards = rollout(models[0], settings)
    backwards = rollout(models[0], settings, PROMPTS[::-1], STREAMS[::-1])
    assert_same(forwards, Rollouts(backwards.tokens[::-1], backwards.logprobs[::-1], backwards.finished[::-1]))


def test_an_answer_ends_with_its_eos(models):
    settings = sampling(temperature=0.8, max_new_tokens=30)
    endless = rollout(models[0], settings)
    eos = common_token(endless)
    out = rollout(models[0], settings, eos=eos)
    lengths = set()
    for before, tokens, logprobs, values, finished in zip(
        endless.tokens, out.tokens, out.logprobs, endless.logprobs, out.finished, strict=True
    ):
        where = before.tolist().index(eos) + 1 if eos in before else 30
        assert tokens.tolist() == before[:where].tolist()  # its own tokens, whoever else has left the batch
        np.testing.assert_allclose(logprobs, values[:where], rtol=0, atol=1e-5)
        assert finished == (eos in before)
        lengths.add(where)
    assert len(lengths) >= 4  # else the test proves little


def test_eos_as_the_last_possible_token_is_finished(models):
    endless = rollout(models[0], sampling())
    for limit in (1, 4):
        eos = int(endless.tokens[0][limit - 1])
        out = rollout(models[0], sampling(max_new_tokens=limit), PROMPTS[:1], STREAMS[:1], eos)
        assert out.finished == [True]
        assert out.tokens[0][-1] == eos


def test_alignment_does_not_move_positions():
    """Rotary positions are relative and would hide it: GPT-2 learns a vector for each place."""
    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.4, attn_pdrop=0.0
    )
    model = GPT2LMHeadModel(config).eval()
    model.set_attn_implementation(ATTENTION["sdpa"])
    out = rollout(model, sampling())
    for prompt, tokens, logprobs in zip(PROMPTS, out.tokens, out.logprobs, strict=True):
        logits = torch.from_numpy(full_logits(model, prompt, tokens)).double()
        expected = logits.log_softmax(-1).gather(1, torch.from_numpy(tokens).long()[:, None])[:, 0]
        torch.testing.assert_close(torch.from_numpy(logprobs).double(), expected, rtol=0, atol=1e-5)


def test_one_stream_gives_one_answer_and_another_stream_another(models):
    prompts = [PROMPTS[0]] * 3
    out = rollout(models[0], sampling(), prompts, [(17, 0, 3, 0), (17, 0, 3, 1), (17, 0, 3, 0)])
    assert out.tokens[0].tolist() == out.tokens[2].tolist()
    assert out.tokens[0].tolist() != out.tokens[1].tolist()


def test_a_longer_limit_only_adds_tokens(models):
    short, long = rollout(models[0], sampling(max_new_tokens=4)), rollout(models[0], sampling(max_new_tokens=9))
    assert [tokens.tolist() for tokens in short.tokens] == [tokens[:4].tolist() for tokens in long.tokens]


def test_no_prompts_no_answers(models):
    assert rollout(models[0], sampling(), [], []) == Rollouts([], [], [])


def test_no_gradient_is_kept(models):
    out = rollout(models[0], sampling(max_new_tokens=2), PROMPTS[:1], STREAMS[:1])
    assert isinstance(out.logprobs[0], np.ndarray)
    assert torch.is_grad_enabled()


def test_uniform_draws_are_one_named_stream():
    draws = uniform_draws((17, 2, 5, 1), 8)
    assert draws.tolist() == np.random.default_rng((17, 2, 5, 1)).random(8).tolist()
    assert draws[:3].tolist() == uniform_draws((17, 2, 5, 1), 3).tolist()
    neighbours = {
        uniform_draws(stream, 1)[0] for stream in ((17, 2, 5, 1), (17, 2, 5, 2), (17, 2, 6, 1), (18, 2, 5, 1))
    }
    assert len(neighbours) == 4


class Counting:
    """A model that counts the tokens it is given, and the most answers it is given at once."""

    def __init__(self, model) -> None:
        self._model, self.tokens, self.most_answers = model, 0, 0

    def __call__(self, **inputs):
        self.tokens += inputs["input_ids"].numel()
        self.most_answers = max(self.most_answers, len(inputs["input_ids"]))
        return self._model(**inputs)

    def __getattr__(self, name):
        return getattr(self._model, name)


def test_answers_to_one_prompt_share_its_prefill(models):
    counting = Counting(models[0])
    prompts, streams = [PROMPTS[7]] * 3 + [PROMPTS[1]], [(1, 2, row, 0) for row in range(4)]
    out = rollout(counting, sampling(max_new_tokens=1), prompts, streams)
    assert counting.tokens == len(PROMPTS[7]) + len(PROMPTS[1])
    alone = rollout(models[0], sampling(max_new_tokens=1), prompts[2:3], streams[2:3])
    assert alone.tokens[0].tolist() == out.tokens[2].tolist()


def test_waiting_prompts_take_the_slots_of_ended_answers(models):
    """Ten answers in four slots: no slot waits for the longest of its neighbours."""
    eos = common_token(rollout(models[0], sampling(temperature=0.8)))
    counting = Counting(models[0])
    out = rollout(counting, sampling(temperature=0.8, batch_size=4), eos=eos)
    assert counting.most_answers == 4
    decoded = sum(len(tokens) - 1 for tokens in out.tokens)
    in_four_whole_batches = sum(
        4 * (max(len(out.tokens[item]) for item in group) - 1)
        for order in [sorted(range(10), key=lambda item: len(PROMPTS[item]))]
        for group in (order[:4], order[4:8], order[8:])
    )
    assert decoded <= counting.tokens - sum(map(len, PROMPTS)) < in_four_whole_batches


def test_a_stop_text_ends_an_answer(models):
    free = rollout(models[0], sampling())
    words = {int(token): f"<{int(token)}>" for tokens in free.tokens for token in tokens}
    stop = words[int(free.tokens[0][3])] + words[int(free.tokens[0][4])]  # two tokens make it up

    def text(ids) -> str:
        return "".join(words[int(token)] for token in ids)

    out = TransformersRollout(models[0], NEVER, text).generate(PROMPTS, STREAMS, sampling(stop=[stop]))
    assert out.tokens[0].tolist() == free.tokens[0][:5].tolist()
    assert out.finished[0]
    for before, after, finished in zip(free.tokens, out.tokens, out.finished, strict=True):
        assert finished == (stop in text(before))
        assert after.tolist() == before[: len(after)].tolist()


def test_stop_texts_need_a_tokenizer(models):
    with pytest.raises(ConfigError, match="stop"):
        rollout(models[0], sampling(stop=["끝"]))


def test_what_does_not_fit_into_memory_is_refused_before_it_is_tried(models, monkeypatch):
    # 10 slots of 15 + 10 tokens: 2 layers of keys and values of 32 numbers of 4 bytes (half as many heads in Llama)
    monkeypatch.setattr(capacity, "free_memory", lambda device: 2 * 10 * 25 * 2 * 16 * 4 - 1)
    with pytest.raises(ModelError, match=r"sampling\.batch_size"):
        rollout(models[0], sampling())


def test_memory_is_needed_for_the_prompts_there_are(models, monkeypatch):
    """Ten prompts in up to 64 slots take ten slots; ten prompts in four slots take four."""
    slot = 25 * capacity.column_bytes(models[0])
    for batch_size, slots in ((64, 10), (None, 10), (4, 4)):
        monkeypatch.setattr(capacity, "free_memory", lambda device, slots=slots: slots * slot)
        rollout(models[0], sampling(batch_size=batch_size))
        monkeypatch.setattr(capacity, "free_memory", lambda device, slots=slots: slots * slot - 1)
        with pytest.raises(ModelError, match=rf"keys and values of {slots} answers"):
            rollout(models[0], sampling(batch_size=batch_size))


def test_a_window_shorter_than_prompt_and_answer_is_refused(models):
    config = models[0].config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "sliding_window", 24, raising=False)
        with pytest.raises(ModelError, match="sliding window of 24"):
            rollout(models[0], sampling())  # 15 + 10 tokens
