"""The endpoint against a real service on this machine: order, faults, cache, budget, rate."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from rlhf.curate.endpoint.budget import Budget
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import EndpointRequest, json_schema_format
from rlhf.curate.endpoint.options import EndpointOptions
from rlhf.curate.endpoint.worker import RateLimiter
from rlhf.errors import ArtifactError, BudgetError, EndpointError
from tests.support.openai_server import Behaviour, Fault, Server, serve


def asked(text: str, **options: Any) -> EndpointRequest:
    return EndpointRequest(({"role": "user", "content": text},), **options)


def questions(number: int) -> list[EndpointRequest]:
    return [asked(f"질문 {index}") for index in range(number)]


def echo(body: dict[str, Any]) -> str:
    return f"{body['messages'][-1]['content']}의 답"


def texts(server: Server, number: int, **options: Any) -> list[str]:
    with Endpoint(server.url, "m", EndpointOptions(**{"backoff_s": 0.01, **options})) as endpoint:
        return [answer.text for answer in endpoint.complete_all(questions(number))]


def contents(server: Server) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.requests]


def test_answers_come_in_the_order_of_the_requests_which_run_at_once() -> None:
    slower_first = Behaviour(answer=lambda body: (time.sleep(0.2 if "질문 0" in str(body) else 0), echo(body))[1])
    with serve(slower_first) as server:
        assert texts(server, 12, concurrency=4) == [f"질문 {index}의 답" for index in range(12)]
        assert 1 < server.most_at_once <= 4


def test_requests_are_taken_as_they_are_needed() -> None:
    drawn = itertools.count()

    def endless() -> Iterator[EndpointRequest]:
        while True:
            yield asked(f"질문 {next(drawn)}")

    with serve(Behaviour(answer=echo)) as server, Endpoint(server.url, "m", EndpointOptions(concurrency=2)) as endpoint:
        answers = [answer.text for answer in itertools.islice(endpoint.complete_all(endless()), 3)]
    assert answers == ["질문 0의 답", "질문 1의 답", "질문 2의 답"]
    assert next(drawn) <= 3 + 4 * 2


@pytest.mark.parametrize("kind", ["429", "500", "cut", "malformed", "slow"])
def test_a_passing_fault_is_asked_again(kind: str) -> None:
    with serve(Behaviour(faults={2: Fault(kind)}, answer=echo)) as server:
        assert texts(server, 6, concurrency=2, timeout=1.0) == [f"질문 {index}의 답" for index in range(6)]
        seen = contents(server)
    assert len(seen) == 7
    assert seen.count(seen[2]) == 2


def test_a_service_that_asks_to_wait_is_waited_for() -> None:
    with serve(Behaviour(faults={0: Fault("429", retry_after="0.4")}, answer=echo)) as server:
        assert texts(server, 1) == ["질문 0의 답"]
        assert server.arrived[1] - server.arrived[0] >= 0.4


def test_a_wait_holds_every_request_back() -> None:
    async def waited_s() -> float:
        gate, clock = RateLimiter(Budget(EndpointOptions())), asyncio.get_running_loop().time
        before = clock()
        gate.pause(0.1)
        await gate.admit(0.0)
        return clock() - before

    assert asyncio.run(waited_s()) >= 0.1


def test_a_wait_of_an_hour_is_an_error() -> None:
    with serve(Behaviour(faults={0: Fault("429", retry_after="3600")})) as server:
        with pytest.raises(EndpointError, match="3600 s"):
            texts(server, 1)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [("401", "api-key-env"), ("404", "--model"), ("400", "Invalid value"), ("quota", "add credit")],
)
def test_a_fault_that_stays_ends_at_once(kind: str, said: str) -> None:
    with serve(Behaviour(faults={0: Fault(kind)})) as server:
        with pytest.raises(EndpointError, match=said):
            texts(server, 3, concurrency=1)
        assert len(server.requests) == 1


def test_answers_before_a_fault_that_stays_are_given(tmp_path: Path) -> None:
    with serve(Behaviour(faults={3: Fault("400")}, answer=echo)) as server:
        with Endpoint(server.url, "m", EndpointOptions(concurrency=1), cache=tmp_path / "c.sqlite") as endpoint:
            answers = endpoint.complete_all(questions(6))
            assert [next(answers).text for _ in range(3)] == ["질문 0의 답", "질문 1의 답", "질문 2의 답"]
            with pytest.raises(EndpointError, match="the answers so far are in"):
                next(answers)
        assert len(server.requests) == 4


def test_a_fault_that_never_passes_is_given_up() -> None:
    with serve(Behaviour(faults=lambda *_: Fault("500"))) as server:
        with pytest.raises(EndpointError, match="no answer in 3 attempts"):
            texts(server, 1, retries=2)
        assert len(server.requests) == 3


def test_an_address_where_nothing_listens_is_an_error_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with (
        Endpoint(url, "m", EndpointOptions(backoff_s=60)) as endpoint,
        pytest.raises(EndpointError, match="cannot be reached"),
    ):
        endpoint.complete(asked("안녕"))


def test_the_newer_name_of_the_limit_is_used_where_it_is_wanted() -> None:
    def older(_: int, body: dict[str, Any]) -> Fault | None:
        return Fault("limit-name") if "max_tokens" in body else None

    with serve(Behaviour(faults=older, answer=echo)) as server:
        assert texts(server, 8, concurrency=4) == [f"질문 {index}의 답" for index in range(8)]
        newer = [body.get("max_completion_tokens") for body in server.requests if "max_tokens" not in body]
        assert newer == [1024] * 8
        assert len(server.requests) <= 8 + 4  # the requests on their way when the first was refused


# The cache


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    with serve(Behaviour(answer=echo)) as server:
        first = texts(server, 10, cache=tmp_path / "c.sqlite")
        assert len(server.requests) == 10
        assert texts(server, 10, cache=tmp_path / "c.sqlite") == first
        assert len(server.requests) == 10
        with Endpoint(server.url, "m", cache=tmp_path / "c.sqlite") as endpoint:
            answers = list(
                endpoint.complete_all([*questions(10), asked("질문 3", sample=1), asked("질문 3", top_p=0.9)])
            )
            assert [answer.cached for answer in answers] == [True] * 10 + [False] * 2
            assert (endpoint.usage.num_cached, endpoint.usage.num_sent) == (10, 2)


def test_a_cached_answer_is_the_whole_answer(tmp_path: Path) -> None:
    request = asked("점수를 적으세요.\n친근함: N", logprobs=True, top_logprobs=5)
    with serve() as server:
        with Endpoint(server.url, "m", cache=tmp_path / "c.sqlite") as endpoint:
            fresh = endpoint.complete(request)
        with Endpoint(server.url, "m", cache=tmp_path / "c.sqlite") as endpoint:
            kept = endpoint.complete(request)
    assert kept == replace(fresh, cached=True)
    digit = next(token for token in fresh.logprobs if token.token.isdigit())
    assert sorted(text for text, _ in digit.top) == ["1", "2", "3", "4", "5"]


def test_equal_requests_under_way_are_asked_once(tmp_path: Path) -> None:
    with serve(Behaviour(delay_s=0.1, answer=echo)) as server:
        with Endpoint(server.url, "m", cache=tmp_path / "c.sqlite") as endpoint:
            answers = list(endpoint.complete_all([asked("같은 질문")] * 4))
        assert len(server.requests) == 1
    assert [answer.cached for answer in answers] == [False, True, True, True]


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("이것은 데이터베이스가 아닙니다. " * 10, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"c\.sqlite: is not a SQLite database"):
        Endpoint("http://127.0.0.1:9/v1", "m", cache=path)


# The budget: the service counts a token a character, so "가" * 10 costs 10 at 1 a token


def ten(_: dict[str, Any]) -> str:
    return "가" * 10


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_limit_on_requests_is_never_exceeded(concurrency: int) -> None:
    with serve(Behaviour(answer=ten)) as server:
        with Endpoint(server.url, "m", EndpointOptions(concurrency=concurrency, max_requests=5)) as endpoint:
            answers = endpoint.complete_all(questions(8))
            assert [next(answers).text for _ in range(5)] == ["가" * 10] * 5
            with pytest.raises(BudgetError, match="5 requests"):
                next(answers)
        assert len(server.requests) == 5


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_limit_on_cost_is_never_exceeded(concurrency: int) -> None:
    # At most 20 each: 0 + 20, 10 + 20 and 20 + 20 are within 45, 30 + 20 is not.
    requests = [asked(f"질문 {index}", max_tokens=20) for index in range(8)]
    with serve(Behaviour(answer=ten)) as server:
        options = EndpointOptions(concurrency=concurrency, max_cost=45, price_out=1000)
        with Endpoint(server.url, "m", options) as endpoint:
            answers = endpoint.complete_all(requests)
            assert [next(answers).completion_tokens for _ in range(3)] == [10, 10, 10]
            with pytest.raises(BudgetError, match=r"spent 30\.0000 of 45\.0000"):
                next(answers)
        assert len(server.requests) == 3
    assert endpoint.budget.cost == pytest.approx(30)


def test_what_broke_off_is_booked_at_its_most_and_what_was_turned_away_is_not() -> None:
    # Cut: 20 of an answer that never came. 429: nothing. Then the answer: 10.
    faults = {0: Fault("cut"), 1: Fault("429")}
    options = EndpointOptions(backoff_s=0.01, price_out=1000)
    with serve(Behaviour(faults=faults, answer=ten)) as server, Endpoint(server.url, "m", options) as endpoint:
        endpoint.complete(asked("질문", max_tokens=20))
        usage = endpoint.usage
    assert usage.cost == pytest.approx(30)
    assert (usage.num_sent, usage.num_retries) == (2, 2)


def test_a_service_that_does_not_count_tokens_is_booked_at_the_most() -> None:
    options = EndpointOptions(price_out=1000)
    with serve(Behaviour(answer=ten, usage=False)) as server, Endpoint(server.url, "m", options) as endpoint:
        endpoint.complete(asked("질문", max_tokens=20))
    assert endpoint.usage.cost == pytest.approx(20)


def test_the_most_a_prompt_can_cost_is_a_token_a_byte() -> None:
    # 질문 is 6 bytes of UTF-8, 64 tokens may stand around the turns; an answer of 20.
    budget = Budget(EndpointOptions(price_in=1, price_out=10))
    assert budget.worst_cost(asked("질문", max_tokens=20)) == pytest.approx((70 * 1 + 20 * 10) / 1000)


def test_a_limit_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(EndpointError, match="without prices"):
        EndpointOptions(max_cost=1)
    with pytest.raises(EndpointError, match="0 or more"):
        EndpointOptions(max_requests=-1)
    with pytest.raises(EndpointError, match="needs a limit on the answers"):
        Budget(EndpointOptions(max_cost=1, price_out=1)).worst_cost(asked("질문", max_tokens=None))


def test_requests_are_spaced_as_asked() -> None:
    with serve(Behaviour(answer=echo)) as server:
        before = time.monotonic()
        texts(server, 5, requests_per_minute=600)
        assert server.arrived[-1] - before >= 4 * 0.1


# What is sent


def test_the_key_comes_from_the_environment_and_is_needed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointError, match="OPENAI_API_KEY is not set"):
        Endpoint("https://api.example.com/v1", "m")
    monkeypatch.setenv("MY_KEY", "secret-1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serve(Behaviour(key="secret-1", answer=echo)) as server:
        assert texts(server, 1, api_key_env="MY_KEY") == ["질문 0의 답"]
        with pytest.raises(EndpointError, match="Incorrect API key"):
            texts(server, 1)


def test_the_request_says_all_that_was_asked() -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
    wanted = json_schema_format("judgement", schema)
    request = asked("고르세요", temperature=0.0, top_p=0.5, max_tokens=9, response_format=wanted)
    with serve() as server, Endpoint(server.url, "m") as endpoint:
        assert endpoint.complete(request).text in ('{"label": "긍정"}', '{"label": "부정"}', '{"label": "중립"}')
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "고르세요"}],
            "temperature": 0.0,
            "top_p": 0.5,
            "max_tokens": 9,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "judgement", "strict": True, "schema": schema},
            },
        }
    ]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="is not an address"):
        Endpoint(url, "m")


def test_refusals_are_told_apart() -> None:
    faults = {0: Fault("refusal"), 1: Fault("filter")}
    with (
        serve(Behaviour(faults=faults, answer=echo)) as server,
        Endpoint(server.url, "m", EndpointOptions(concurrency=1)) as endpoint,
    ):
        assert [answer.refused for answer in endpoint.complete_all(questions(3))] == [True, True, False]


# The service of the tests itself, by the official client


def test_the_service_streams_and_lists_its_models() -> None:
    with serve(Behaviour(models=("가", "나"))) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none")
        assert [model.id for model in client.models.list()] == ["가", "나"]
        messages: Any = [{"role": "user", "content": "안녕하세요"}]
        whole = client.chat.completions.create(model="가", messages=messages).choices[0].message.content
        chunks = client.chat.completions.create(model="가", messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert len(pieces) > 3
    assert "".join(pieces) == whole
