"""`rlhf serve` as a process, asked by the `openai` client as it comes."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from openai import APIError, APIStatusError, APITimeoutError, NotFoundError, OpenAI, RateLimitError

from tests.support.endless_model import save_endless_model
from tests.support.serving import service_process

CHAT = [{"role": "user", "content": "오늘 날씨가 참 좋네요!"}]
LONG = 3000  # tokens: some seconds, so that nothing below ends by itself
DEADLINE_S = 60


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A model of 4,096 positions that never says EOS."""
    folder = tmp_path_factory.mktemp("runs") / "friendly"
    save_endless_model(folder, tiny_tokenizer_dir)
    return folder


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str
    client: OpenAI

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url.removesuffix('/v1')}/metrics").text
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])

    def wait_for(self, name: str, value: float) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.01)

    def stream(self, **settings):
        return self.client.chat.completions.create(model="friendly", messages=CHAT, stream=True, **settings)


@contextmanager
def serving(model_folder: Path, *words: str) -> Iterator[Service]:
    """The service and its client; two answers at once, and one that waits."""
    limits = ("--max-batch", "2", "--queue", "1")
    with service_process("--model", str(model_folder), "--template", "kullm", *limits, *words) as (process, said):
        url = re.search(r"serving on (\S+)", said)[1]
        client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=DEADLINE_S)
        yield Service(process, url, client)


@pytest.fixture(scope="module")
def service(model_folder: Path) -> Iterator[Service]:
    with serving(model_folder) as running:
        yield running


def test_models_are_listed(service):
    assert [model.id for model in service.client.models.list()] == ["friendly"]
    assert service.client.models.retrieve("friendly").context_window == 4096


def test_an_answer_is_the_same_whole_and_streamed_alone_and_in_a_batch(service):
    settings = {"seed": 7, "max_tokens": 40, "temperature": 0.9}
    create = service.client.chat.completions.create
    whole = create(model="friendly", messages=CHAT, n=2, logprobs=True, top_logprobs=3, **settings)
    first = create(model="friendly", messages=CHAT, **settings).choices[0]
    assert first.message.content == whole.choices[0].message.content != whole.choices[1].message.content
    assert first.finish_reason == "length"
    assert whole.usage.completion_tokens == 80
    texts, usage, roles = ["", ""], None, []
    for chunk in service.stream(n=2, stream_options={"include_usage": True}, **settings):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            roles += [choice.delta.role] if choice.delta.role else []
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage == whole.usage
    assert roles == ["assistant"] * 2
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(texts)
    tokens = whole.choices[0].logprobs.content
    assert len(tokens) == 40
    joined = bytes(byte for token in tokens for byte in token.bytes)
    assert joined.decode("utf-8", errors="ignore") == texts[0]
    assert all(len(token.top_logprobs) == 3 and token.logprob < 0 for token in tokens)


def test_completions(service):
    create = service.client.completions.create
    reply = create(model="friendly", prompt=["안녕", "오늘은"], logprobs=2, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.usage.completion_tokens == 32  # 16 each is the default
    found = reply.choices[0].logprobs
    assert found.text_offset[0] == 2
    assert found.text_offset[-1] <= 2 + len(reply.choices[0].text)
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert top[token] == logprob
        assert len(top) in (2, 3)
    text = create(model="friendly", prompt="안녕", seed=1, max_tokens=30).choices[0].text
    stop = text[10:12]
    cut = create(model="friendly", prompt="안녕", seed=1, max_tokens=30, stop=[stop, "없는 말"]).choices[0]
    assert (cut.text, cut.finish_reason) == (text[: text.index(stop)], "stop")


@pytest.mark.parametrize(
    ("settings", "status", "param"),
    [
        ({"model": "gone"}, 404, "model"),
        ({"temperature": 3}, 400, "temperature"),
        ({"stop": [""]}, 400, "stop[0]"),
        ({"n": 5}, 400, "n"),
        ({"max_tokens": 4096}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "가" * 5000}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content[0].type"),
        ({"messages": CHAT * 2}, 400, "messages"),
        ({"extra_body": {"guided_json": {}}}, 400, "guided_json"),
    ],
)
def test_errors_are_shaped_as_openais(service, settings, status, param):
    with pytest.raises(APIStatusError) as refused:
        service.client.chat.completions.create(**{"model": "friendly", "messages": CHAT, "max_tokens": 2} | settings)
    assert (refused.value.status_code, refused.value.param) == (status, param)
    assert refused.value.body["message"]


def test_other_sites_and_large_bodies_are_refused(service):
    url = service.url
    assert httpx.get(f"{url}/models", headers={"host": "evil.example"}).status_code == 421
    assert httpx.get(f"{url}/models", headers={"origin": "http://evil.example"}).status_code == 403
    chunks = (b" " * 1_000_000 for _ in range(6))  # of no announced length
    reply = httpx.post(f"{url}/chat/completions", content=chunks, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    reply = httpx.post(f"{url}/chat/completions", content=b"{", headers={"content-type": "application/json"})
    assert (reply.status_code, "access-control-allow-origin" in reply.headers) == (400, False)
    with pytest.raises(NotFoundError):
        service.client.embeddings.create(model="friendly", input="가")


def test_a_client_that_leaves_frees_its_slot(service):
    before = service.metric("rlhf_generated_tokens_total")
    stream = service.stream(max_tokens=LONG)
    next(iter(stream))
    stream.close()
    with pytest.raises(APITimeoutError):  # and one that waits for the whole answer
        service.client.chat.completions.create(model="friendly", messages=CHAT, max_tokens=LONG, timeout=0.3)
    service.wait_for("rlhf_answers_running", 0)
    assert 0 < service.metric("rlhf_generated_tokens_total") - before < 2 * LONG


def test_more_than_may_wait_is_told_when_to_come_back(service):
    streams = [service.stream(max_tokens=LONG) for _ in range(2)]
    for stream in streams:
        next(iter(stream))
    waiting = service.client.completions.with_raw_response
    with service.client.chat.completions.with_streaming_response.create(
        model="friendly", messages=CHAT, max_tokens=LONG, stream=True
    ):
        service.wait_for("rlhf_answers_waiting", 1)
        with pytest.raises(RateLimitError) as refused:
            waiting.create(model="friendly", prompt="안녕")
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        for stream in streams:
            stream.close()
    service.wait_for("rlhf_answers_running", 0)
    assert service.client.completions.create(model="friendly", prompt="안녕", max_tokens=2).choices


def test_a_request_that_takes_too_long_is_given_up(model_folder):
    with serving(model_folder, "--timeout", "0.5") as service:
        with pytest.raises(APIStatusError) as refused:
            service.client.chat.completions.create(model="friendly", messages=CHAT, max_tokens=LONG)
        assert (refused.value.status_code, refused.value.code) == (408, "timeout")
        received = []
        with pytest.raises(APIError, match="took too long"):  # after the status has been sent: as an event
            received.extend(service.stream(max_tokens=LONG))
        assert received
        service.wait_for("rlhf_answers_running", 0)
        assert service.client.completions.create(model="friendly", prompt="안녕", max_tokens=2).choices


def test_sigterm_finishes_what_runs_and_takes_on_nothing_new(service):
    stream = service.stream(max_tokens=400, stream_options={"include_usage": True})
    chunks = iter(stream)
    next(chunks)
    service.process.send_signal(signal.SIGTERM)
    rest = list(chunks)
    assert [choice.finish_reason for chunk in rest for choice in chunk.choices][-1] == "length"
    assert rest[-1].usage.completion_tokens == 400
    assert service.process.wait(DEADLINE_S) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/models")
