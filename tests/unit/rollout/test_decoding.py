"""Which answers share a prefill, and what each one records, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhf.models.loading import load_causal_lm
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.sequences import ActiveSequence

NEVER = -1  # an EOS that no token is
RNG = np.random.default_rng(5)
SEVEN, ONE, FIFTEEN, FOUR = (RNG.integers(2, 400, length).astype(np.int32) for length in (7, 1, 15, 4))


class Recording:
    """A model that records how many tokens each prefill has."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.prefills: list[int] = []

    def __call__(self, **inputs: Any) -> Any:
        if "segments" in inputs:
            self.prefills.append(inputs["input_ids"].numel())
        return self._model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.fixture(scope="module")
def model(tiny_neox):
    return load_causal_lm(str(tiny_neox)).model.eval()


def decoded(model: Any, answers: list[ActiveSequence]) -> None:
    decoder = Decoder(model, NEVER, num_slots=8)
    decoder.admit(answers)
    while decoder.busy:
        decoder.step()


@pytest.mark.parametrize(
    ("prompts", "most", "expected"),
    [
        ([SEVEN, ONE, FIFTEEN, FOUR], 12, [8, 15, 4]),  # a prompt beyond the limit is prefilled alone
        ([SEVEN, ONE, FIFTEEN, FOUR], 27, [27]),
        ([SEVEN, SEVEN, SEVEN, ONE], 8, [8]),  # a shared prompt counts once
    ],
)
def test_a_prefill_stays_within_its_tokens(model, monkeypatch, prompts, most, expected):
    monkeypatch.setattr("rlhf.rollout.decoding.PREFILL_TOKENS", most)
    recording = Recording(model)
    decoded(recording, [ActiveSequence(prompt, uniform_draws((1, row), 6)) for row, prompt in enumerate(prompts)])
    assert recording.prefills == expected


def test_each_answer_records_as_many_alternatives_as_it_asks_for(model):
    """The first answer ends after two tokens, and keeps its slot while the other four continue."""
    wanted, limits = [3, 1, None, 2, 0], [2, 6, 6, 6, 6]
    answers = [
        ActiveSequence(FOUR, uniform_draws((1, row), limit), num_likeliest=count)
        for row, (count, limit) in enumerate(zip(wanted, limits, strict=True))
    ]
    decoded(model, answers)
    assert [len(answer.tokens) for answer in answers] == limits
    assert [[len(entry.top) for entry in answer.top_logprobs] for answer in answers] == [
        [3] * 2,
        [1] * 6,
        [],
        [2] * 6,
        [0] * 6,
    ]
