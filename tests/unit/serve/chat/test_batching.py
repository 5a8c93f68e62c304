"""Answers of many requests in one loop, against the same answers alone and against the rollout."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from rlhf.models.loading import load_causal_lm
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.sequences import ActiveSequence, Decoding
from rlhf.serve.chat.batching import AnswerRequest, Batcher, QueueFullError

NEVER = -1
RNG = np.random.default_rng(5)
PROMPTS = [RNG.integers(2, 400, length).astype(np.int32) for length in (7, 1, 12, 4, 4, 9, 2, 15, 3, 5, 30, 6)]
DECODINGS = [Decoding(0.0), Decoding(1.0), Decoding(0.8, 0, 0.9), Decoding(1.2, 20, 1.0)]


@pytest.fixture(scope="module", params=["tiny_neox", "tiny_llama"])
def model(request):
    return load_causal_lm(str(request.getfixturevalue(request.param))).model.eval()


def answers_of(count: int = 12) -> list[ActiveSequence]:
    """Prompts, lengths and settings of every kind."""
    return [
        ActiveSequence(
            PROMPTS[number], uniform_draws((7, number), 5 + 3 * number), DECODINGS[number % 4], num_likeliest=2
        )
        for number in range(count)
    ]


def alone(model, answers: list[ActiveSequence]) -> list[list[int]]:
    found = []
    for answer in answers:
        decoder = Decoder(model, NEVER, num_slots=1)
        decoder.admit([answer])
        while decoder.busy:
            decoder.step()
        found.append(answer.tokens)
    return found


@pytest.mark.parametrize("slots", [3, 8])
def test_answers_do_not_depend_on_who_comes_and_goes(model, slots):
    """Two come at every step, so that they enter beside running ones: in place, and by rearranging."""
    expected = alone(model, answers_of())
    decoder, together = Decoder(model, NEVER, num_slots=slots, enter_above=1.0), answers_of()
    coming = list(together)
    while coming or decoder.busy:
        decoder.admit([coming.pop(0) for _ in range(min(2, len(coming)))])
        decoder.step()
    assert [answer.tokens for answer in together] == expected
    assert [len(answer.tokens) for answer in together] == [5 + 3 * number for number in range(12)]


def test_a_cancelled_answer_leaves_its_slot_and_the_others_alone(model):
    expected = alone(model, answers_of(6))
    decoder, answers = Decoder(model, NEVER, num_slots=4, enter_above=1.0), answers_of(6)
    decoder.admit(answers)
    decoder.step()
    decoder.cancel(answers[3])  # in a slot
    decoder.cancel(answers[5])  # waiting
    assert (decoder.num_running, len(decoder._waiting)) == (3, 1)
    while decoder.busy:
        decoder.step()
    assert len(answers[3].tokens) == 1
    assert answers[5].tokens == []
    for number in (0, 1, 2, 4):
        assert answers[number].tokens == expected[number]


def test_a_cache_that_is_full_goes_on_in_a_new_one(model, monkeypatch):
    expected = alone(model, answers_of(4))
    monkeypatch.setattr("rlhf.rollout.decoding.ROOM", 3)
    decoder, answers = Decoder(model, NEVER, num_slots=4), answers_of(4)
    decoder.admit(answers)
    while decoder.busy:
        decoder.step()
    assert [answer.tokens for answer in answers] == expected


def test_top_logprobs_are_the_models_own_distribution(model):
    """At temperature 1 and uncut, whatever the answer was drawn with."""
    answer = ActiveSequence(PROMPTS[2], uniform_draws((1,), 6), Decoding(0.5, 3, 0.9), num_likeliest=4)
    alone(model, [answer])
    ids = torch.from_numpy(np.concatenate([PROMPTS[2], answer.tokens])).long()[None]
    logprobs = model(ids).logits[0, len(PROMPTS[2]) - 1 : -1].detach().double().log_softmax(-1)
    for place, found in enumerate(answer.top_logprobs):
        assert found.logprob == pytest.approx(logprobs[place, answer.tokens[place]].item(), abs=1e-5)
        values, tokens = logprobs[place].topk(4)
        assert [token for token, _ in found.top] == tokens.tolist()
        assert [value for _, value in found.top] == pytest.approx(values.tolist(), abs=1e-5)


# The thread


class Unwatched:
    """Counts drawn tokens."""

    def __init__(self) -> None:
        self.tokens = 0

    def first_token(self, seconds: float) -> None:
        pass

    def step(self, tokens: int) -> None:
        self.tokens += tokens


def words(ids) -> str:
    return "".join(f"<{token}>" for token in ids)


@pytest.fixture
def make(model):
    made = []

    def build(**settings) -> Batcher:
        options = {"num_slots": 4, "queue": 100} | settings
        decoder = Decoder(model, NEVER, num_slots=options["num_slots"], enter_above=1.0)
        made.append(Batcher(decoder, NEVER, words, observer=Unwatched(), **options))
        return made[-1]

    yield build
    for batcher in made:
        batcher.close()


async def collect(batcher: Batcher, requests: list[AnswerRequest]) -> list[str]:
    texts, finishes = [""] * len(requests), [""] * len(requests)
    async for deltas in batcher.submit(requests).deltas():
        for delta in deltas:
            texts[delta.index] += delta.text
            finishes[delta.index] = delta.finish or ""
    return [f"{text} {finish}" for text, finish in zip(texts, finishes, strict=True)]


def test_every_request_gets_the_answer_it_gets_alone(make):
    requests = [AnswerRequest(PROMPTS[n], 4 + n, DECODINGS[n % 4], seed=n // 2, sample=n % 2) for n in range(12)]

    async def run() -> tuple[list[str], list[str]]:
        batcher = make()
        one_by_one = [(await collect(batcher, [request]))[0] for request in requests]
        at_once = await asyncio.gather(*(collect(batcher, requests[start : start + 3]) for start in range(0, 12, 3)))
        return one_by_one, [text for texts in at_once for text in texts]

    one_by_one, at_once = asyncio.run(run())
    assert at_once == one_by_one
    assert all(text.endswith(" length") for text in at_once)


def test_a_stop_text_ends_an_answer_and_frees_its_slot(make):
    async def run() -> tuple[str, str, int]:
        batcher = make()
        request = AnswerRequest(PROMPTS[0], 60, Decoding(1.0), seed=3)
        whole = (await collect(batcher, [request]))[0]
        stop = whole.split("<")[5].removesuffix(">")
        cut = (await collect(batcher, [AnswerRequest(PROMPTS[0], 60, Decoding(1.0), seed=3, stops=(f"<{stop}>",))]))[0]
        return whole, cut, batcher.num_waiting + batcher.num_running

    whole, cut, left = asyncio.run(run())
    assert cut.endswith(" stop")
    assert whole.startswith(cut.removesuffix(" stop"))
    assert cut.count("<") <= 4
    assert left == 0


def test_a_full_queue_refuses_and_takes_on_again(make):
    async def run() -> list[str]:
        batcher = make(num_slots=1, queue=1)
        long = AnswerRequest(PROMPTS[0], 240, Decoding(1.0), seed=1)
        first, second = batcher.submit([long]), batcher.submit([long])
        with pytest.raises(QueueFullError) as refused:
            batcher.submit([long])
        assert 1 <= refused.value.retry_after_s <= 60
        first.cancel()
        second.cancel()
        deadline = asyncio.get_running_loop().time() + 20
        while batcher.num_running + batcher.num_waiting:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.001)
        return await collect(batcher, [AnswerRequest(PROMPTS[0], 3, Decoding(1.0), seed=1)])

    assert asyncio.run(run())[0].endswith(" length")


def test_a_failing_model_fails_its_requests_and_no_others(make, monkeypatch):
    async def run() -> list[str]:
        batcher = make()
        with monkeypatch.context() as patch:
            patch.setattr(batcher._decoder, "_model", lambda **inputs: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await collect(batcher, [AnswerRequest(PROMPTS[0], 3, Decoding(1.0), seed=1)])
        return await collect(batcher, [AnswerRequest(PROMPTS[0], 3, Decoding(1.0), seed=1)])

    assert asyncio.run(run())[0].endswith(" length")
