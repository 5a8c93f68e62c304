"""The service's loop with the steps of an engine in a process of its own, against those of `Decoder`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlhf.config.rollout import RolloutSection, VllmSection
from rlhf.errors import ConfigError, EngineError
from rlhf.rollout.sequences import Decoding
from rlhf.serve.chat.batching import AnswerRequest, Batcher, TextDelta
from rlhf.serve.chat.models import Models
from rlhf.serve.options import ServingSettings
from tests.support.bigram_model import make_bigram_model, toy_python

RNG = np.random.default_rng(8)
PROMPTS = [RNG.integers(2, 400, length).astype(np.int32) for length in (7, 1, 12, 4, 9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, chat_tokenizer) -> Path:
    return make_bigram_model(tmp_path_factory.mktemp("bigram") / "model", chat_tokenizer)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    return toy_python(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def served(model, python, tmp_path):
    made = []

    def add(backend: str = "vllm", program: Path = python, **settings: Any) -> Batcher:
        rollout = RolloutSection(backend=backend, vllm=VllmSection(python=str(program)))
        watched: Any = SimpleNamespace(step=lambda tokens: None, first_token=lambda seconds: None)
        models = Models(ServingSettings(rollout=rollout, engine_logs=tmp_path, **settings), watched)
        made.append(models)
        return models.add("친구 1", str(model)).batcher

    yield add
    for models in made:
        models.close()


async def deltas_of(batcher: Batcher, requests: list[AnswerRequest]) -> list[TextDelta]:
    return [delta async for deltas in batcher.submit(requests).deltas() for delta in deltas]


def whole(deltas: list[TextDelta], index: int) -> tuple[str, list[Any], str | None, int]:
    mine = [each for each in deltas if each.index == index]
    tokens = [token for each in mine for token in each.tokens]
    return "".join(each.text for each in mine), tokens, mine[-1].finish, mine[-1].num_tokens


def test_greedy_answers_and_their_likeliest_tokens_are_those_of_the_decoder(served):
    requests = [
        AnswerRequest(prompt, 4 + place, Decoding(0.0), seed=place, num_likeliest=place % 3)
        for place, prompt in enumerate(PROMPTS)
    ]
    found = [asyncio.run(deltas_of(served(backend), requests)) for backend in ("vllm", "transformers")]
    for place in range(len(requests)):
        theirs, ours = (whole(deltas, place) for deltas in found)
        assert (theirs[0], theirs[2:]) == (ours[0], ours[2:])
        for their, our in zip(theirs[1], ours[1], strict=True):
            assert (their.id, their.offset) == (our.id, our.offset)
            assert their.top_logprobs.logprob == pytest.approx(our.top_logprobs.logprob, abs=1e-4)
            assert [each for each, _ in their.top_logprobs.top] == [each for each, _ in our.top_logprobs.top]
            assert len(their.top_logprobs.top) == place % 3


def test_a_sampled_answer_depends_on_its_seed_alone(served):
    batcher = served()
    requests = [
        AnswerRequest(PROMPTS[place // 2], 9, Decoding(1.0), seed=place // 2, sample=place % 2) for place in range(6)
    ]
    together = asyncio.run(deltas_of(batcher, requests))
    texts = [whole(together, place)[0] for place in range(6)]
    for place, request in enumerate(requests):
        assert whole(asyncio.run(deltas_of(batcher, [request])), 0)[0] == texts[place]
    assert len(set(texts)) == 6


def test_a_stop_text_ends_an_answer_and_the_engine_hears_of_it(served, tmp_path):
    batcher = served()
    request = AnswerRequest(PROMPTS[0], 40, Decoding(1.0), seed=3)
    text = whole(asyncio.run(deltas_of(batcher, [request])), 0)[0]
    stop = text[len(text) // 2 :][:2]
    stopped = AnswerRequest(PROMPTS[0], 40, Decoding(1.0), seed=3, stops=(stop,))
    assert whole(asyncio.run(deltas_of(batcher, [stopped])), 0)[0] == text.partition(stop)[0]
    asyncio.run(deltas_of(batcher, [AnswerRequest(PROMPTS[1], 2, Decoding(0.0), seed=3)]))  # a step that says so
    assert (tmp_path / "친구_1.log").read_text().count("cancelled") == 1
    assert batcher.num_running + batcher.num_waiting == 0


def test_an_engine_that_ends_fails_its_requests_and_the_service_is_not_healthy(served, monkeypatch, capfd):
    monkeypatch.setenv("TOY_ENGINE", "dies")
    batcher = served()
    with pytest.raises(EngineError, match="ended with exit status 9"):
        asyncio.run(deltas_of(batcher, [AnswerRequest(PROMPTS[0], 4, Decoding(1.0), seed=3)]))
    batcher._thread.join()
    assert not batcher.alive
    assert "ended with exit status 9" in capfd.readouterr().err


def test_engines_that_do_not_fit_beside_one_another_are_refused(served, monkeypatch):
    served()
    settings = ServingSettings(rollout=RolloutSection(backend="vllm", vllm=VllmSection(gpu_memory=0.6)))
    watched: Any = SimpleNamespace()
    models = Models(settings, watched)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    models._models["friendly"] = SimpleNamespace(batcher=SimpleNamespace(close=lambda: None))  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"--vllm-gpu-memory: 1 engines with 0\.6"):
        models._require_room("두 번째")
