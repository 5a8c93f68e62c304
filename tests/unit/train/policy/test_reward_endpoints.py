"""Scores asked for over HTTP, from a service in this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf.config.reward_sources import RewardEndpoint
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ConfigError, TrainingError
from rlhf.train.policy.reward_endpoints import Asked, ask_endpoint
from tests.support.scoring import Service, scoring_service


@pytest.fixture
def service() -> Iterator[Service]:
    with scoring_service() as running:
        yield running


def asked(prompts: list[str], answers: list[str]) -> Asked:
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return Asked(prompts, answers, [len(answer) > 1 for answer in answers], turns)


def ask(service: Service, answers: list[str], **settings: Any) -> list[Any]:
    endpoint = RewardEndpoint.model_validate({"url": service.url, "backoff_s": 0, "timeout_s": 5, **settings})
    prompts = [f"질문 {number}" for number in range(len(answers))]
    return ask_endpoint(endpoint, "reward.endpoints.0")(asked(prompts, answers))


def test_answers_go_in_batches_and_scores_come_back_in_order(service: Service) -> None:
    assert ask(service, ["가", "나나", "다다다"], batch_size=2, send="texts") == [1, 2, 3]
    assert service.asked == [
        {"prompts": ["질문 0", "질문 1"], "answers": ["가", "나나"]},
        {"prompts": ["질문 2"], "answers": ["다다다"]},
    ]


def test_whole_samples_are_sent_with_their_ids(service: Service, chat_tokenizer: ChatTokenizer) -> None:
    endpoint = RewardEndpoint(url=service.url, batch_size=1)
    given = replace(
        asked(["가", "나"], ["네", "아니요"]),
        ids=[(np.asarray([5, 6], np.int32), np.asarray([7], np.int32)), (np.asarray([5]), np.asarray([8, 0]))],
        tokenizer=chat_tokenizer,
    )
    assert ask_endpoint(endpoint, "")(given) == [1, 3]
    first, second = service.asked
    turn = {"role": "user", "content": "나"}
    tokens = {"tokenizer": chat_tokenizer.fingerprint(), "prompts": [[5]], "answers": [[8, 0]]}
    whole = {"prompts": ["나"], "answers": ["아니요"], "messages": [[turn]], "finished": [True], "tokens": tokens}
    assert second == whole
    assert first["finished"] == [False]
    assert first["tokens"] == {**tokens, "prompts": [[5, 6]], "answers": [[7]]}


def test_rewards_at_offsets_come_back_as_they_are(service: Service) -> None:
    service.replies = [(200, b'{"scores": [[[1, 0.5], [2, -1]], 2]}')]
    assert ask(service, ["가나", "다"]) == [[[1, 0.5], [2, -1]], 2]


def test_a_key_is_sent_and_a_missing_one_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_KEY", "abc")
    assert ask(service, ["가"], api_key_env="REWARD_KEY") == [1]
    assert service.keys == ["Bearer abc"]
    with pytest.raises(ConfigError, match="NO_KEY is not set") as caught:
        ask(service, ["가"], api_key_env="NO_KEY")
    assert caught.value.where == "reward.endpoints.0.api_key_env"


def test_what_a_service_says_of_a_refused_request_is_shown(service: Service) -> None:
    service.replies = [(422, b'{"detail": "extra keys"}')]
    with pytest.raises(TrainingError, match="extra keys") as caught:
        ask(service, ["가"])
    assert "send: texts" in str(caught.value.fix)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_is_not_ready_is_asked_again(service: Service, status: int) -> None:
    service.replies = [(status, b""), (status, b"")]
    assert ask(service, ["가나"], retries=2) == [2]
    assert len(service.asked) == 3


def test_the_pause_doubles_before_each_attempt(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("rlhf.train.policy.reward_endpoints.time.sleep", pauses.append)
    service.replies = [(503, b"")] * 3
    assert ask(service, ["가나"], retries=3, backoff_s=0.5) == [2]
    assert pauses == [0.5, 1.0, 2.0]


def test_one_attempt_too_few_is_an_error(service: Service) -> None:
    service.replies = [(503, b"")] * 3
    with pytest.raises(TrainingError, match="no scores in 3 attempts") as caught:
        ask(service, ["가"], retries=2)
    assert caught.value.where == "reward.endpoints.0"
    assert len(service.asked) == 3


def test_a_refused_request_is_not_made_again(service: Service) -> None:
    service.replies = [(404, b"")]
    with pytest.raises(TrainingError, match="in 1 attempts: HTTP Error 404"):
        ask(service, ["가"])
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "reply", [b"not json", b"[1]", b'{"score": [1]}', b'{"scores": [1, 2]}', b'{"scores": 1}', b"\xff"]
)
def test_a_reply_of_another_form_is_shown(service: Service, reply: bytes) -> None:
    service.replies = [(200, reply)]
    with pytest.raises(TrainingError, match="replied") as caught:
        ask(service, ["가"])
    assert caught.value.expected == '{"scores": [1 numbers]}'
    assert len(service.asked) == 1


def test_a_service_that_is_gone_is_an_error(service: Service) -> None:
    """Nothing listens at port 9 of this machine."""
    service.url = "http://127.0.0.1:9/score"
    with pytest.raises(TrainingError, match="in 2 attempts"):
        ask(service, ["가"], retries=1)


def test_a_silent_service_is_given_up(service: Service) -> None:
    """It takes the connection and never replies."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        service.url = f"http://127.0.0.1:{deaf.getsockname()[1]}/score"
        with pytest.raises(TrainingError, match="timed out"):
            ask(service, ["가"], retries=0, timeout_s=0.05)


def test_each_wait_is_twice_the_last(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    service.replies = [(503, b"")] * 3
    assert ask(service, ["가나"], retries=3, backoff_s=0.5) == [2.0]
    assert waits == [0.5, 1.0, 2.0]
