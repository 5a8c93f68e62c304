"""Scores asked for over HTTP, from a service in this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from rlhf.config.reward_sources import RewardEndpoint
from rlhf.errors import TrainingError
from rlhf.train.policy.reward_endpoints import ask_endpoint
from tests.support.scoring import Service, scoring_service


@pytest.fixture
def service() -> Iterator[Service]:
    with scoring_service() as running:
        yield running


def ask(service: Service, answers: list[str], **settings: Any) -> list[float]:
    endpoint = RewardEndpoint.model_validate({"url": service.url, "backoff_s": 0, "timeout_s": 5, **settings})
    prompts = [f"질문 {number}" for number in range(len(answers))]
    return ask_endpoint(endpoint, "reward.endpoints.0")(prompts, answers, [True] * len(answers))


def test_answers_go_in_batches_and_scores_come_back_in_order(service: Service) -> None:
    assert ask(service, ["가", "나나", "다다다"], batch_size=2) == [1, 2, 3]
    assert service.asked == [
        {"prompts": ["질문 0", "질문 1"], "answers": ["가", "나나"]},
        {"prompts": ["질문 2"], "answers": ["다다다"]},
    ]


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
