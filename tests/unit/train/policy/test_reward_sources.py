"""The reward as a sum of sources, and what happens when one of them does not do its part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
from rlhf.config.reward_sources import RewardRole
from rlhf.data.encode import EncodedPrompt
from rlhf.data.packing import PackedRow
from rlhf.data.records import Message
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, TrainingError
from rlhf.train.policy.reward_endpoints import Asked
from rlhf.train.policy.reward_sources import EXAMPLE, RewardSources, TextSource, check_sources, text_sources
from rlhf.train.policy.samples import Sample

ONE_RANK = Ranks(0, 0, 1, torch.device("cpu"))
HERE = "tests.unit.train.policy.test_reward_sources"


def answer_length(prompts: list[str], answers: list[str], finished: list[bool], *, scale: float = 1.0) -> list[float]:
    return [scale * len(answer) for answer in answers]


class Scorer:
    """A reward model that gives each answer the number of its tokens."""

    ranks = ONE_RANK

    def infer(self, row: PackedRow) -> Tensor:
        return torch.tensor([2.0, 3.0])[: len(row.positions)]


def samples_of(tokenizer: ChatTokenizer, *answers: str) -> list[Sample]:
    found = []
    for number, answer in enumerate(answers):
        (ids,) = tokenizer.token_ids([answer])
        prompt = EncodedPrompt(np.asarray([5, 6], np.int32), number, (Message("user", f"질문 {number}"),))
        response = np.asarray([*ids, tokenizer.eos_id], np.int32)
        found.append(Sample(prompt, response, True, np.zeros(len(response), np.float32)))
    return found


def test_the_reward_is_the_weighted_sum(chat_tokenizer: ChatTokenizer) -> None:
    """0.5 * (2, 3) + -1 * 10 * (2, 4), each source kept as it was."""
    functions = [{"path": f"{HERE}:answer_length", "weight": -1.0, "options": {"scale": 10.0}, "name": "length"}]
    config = PpoConfig.model_validate({"reward": {"path": "x", "weight": 0.5, "functions": functions}})
    scorer: Any = Scorer()
    texts = text_sources(config.reward)
    sources = RewardSources(config, ONE_RANK, (chat_tokenizer, chat_tokenizer), scorer, texts)
    found = sources.scores(samples_of(chat_tokenizer, "안녕", "안녕하세"))
    assert found.by_source == {"model": [2.0, 3.0], "length": [20.0, 40.0]}
    assert found.totals == [1 - 20, 1.5 - 40]


def test_a_source_is_given_texts_without_control_tokens(chat_tokenizer: ChatTokenizer) -> None:
    seen: list[Any] = []

    def ask(asked: Asked) -> list[float]:
        seen.extend((asked.prompts, asked.answers, asked.finished, asked.messages))
        return [1.0, 2.0]

    sources = RewardSources(
        PpoConfig(), ONE_RANK, (chat_tokenizer, chat_tokenizer), None, [TextSource("mine", "key", 1.0, ask)]
    )
    assert sources.scores(samples_of(chat_tokenizer, "네!", "안녕하세요?")).totals == [1.0, 2.0]
    turns = [[{"role": "user", "content": "질문 0"}], [{"role": "user", "content": "질문 1"}]]
    assert seen == [["질문 0", "질문 1"], ["네!", "안녕하세요?"], [True, True], turns]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (lambda: [1.0], "gave 1 scores for 2 answers"),
        (lambda: [1.0, 2.0, 3.0], "gave 3 scores for 2 answers"),
        (lambda: [1.0, math.nan], "no valid reward for answer 1: a reward that is not finite"),
        (lambda: [1.0, "많이"], "no valid reward for answer 1: could not convert"),
        (lambda: [[(1, math.inf)], 1.0], "answer 0: a reward that is not finite"),
        (lambda: [[(3, 1.0)], 1.0], "answer 0: offset 3 in an answer of 2 characters"),
        (lambda: [1.0, [(0, 1.0)]], "answer 1: offset 0 in an answer of 3 characters"),
        (lambda: [1.0, [(2, 1.0), (1, 1.0)]], "answer 1: offset 1 after offset 2"),
        (lambda: [1.0, [(2, 1.0), (2, 1.0)]], "answer 1: offset 2 after offset 2"),
        (lambda: [1.0, [(1.5, 1.0)]], "answer 1: offset 1.5, which is no whole number"),
        (lambda: [1.0, [1, 0.5]], "answer 1: 1 in place of .offset, reward."),
        (lambda: None, "failed: TypeError"),
        (lambda: 1 / 0, "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_fails_is_named(given: Any, problem: str) -> None:
    source = TextSource("rule", "reward.functions.0", 1.0, lambda *_: given())
    with pytest.raises(TrainingError, match=problem) as caught:
        source.rewards(Asked(["a", "b"], ["네!", "안녕!"], [True, True], [[], []]))
    assert "'rule'" in caught.value.problem
    assert caught.value.where == "reward.functions.0"


def test_every_source_is_asked_once_at_the_start() -> None:
    seen: list[Any] = []

    def ask(asked: Asked) -> list[float]:
        seen.append(asked)
        return [0.0]

    check_sources([TextSource("first", "", 1.0, ask), TextSource("second", "", 1.0, ask)], ONE_RANK)
    assert seen == [EXAMPLE, EXAMPLE]
    with pytest.raises(TrainingError, match="'gone'"):
        check_sources([TextSource("gone", "", 1.0, lambda *_: [])], ONE_RANK)


@pytest.mark.parametrize("path", ["no.such.module:f", f"{HERE}:no_such_function"])
def test_a_function_that_is_not_there_is_refused(path: str) -> None:
    role = RewardRole.model_validate({"functions": [{"path": path}]})
    with pytest.raises(ConfigError, match="cannot be imported") as caught:
        text_sources(role)
    assert caught.value.where == "reward.functions.0.path"
