"""Requests of many clients in one decode loop: a thread steps the model and sends new text to whoever waits for it.

Waiting answers enter a slot as soon as one is free, between two tokens of the others. An answer depends on its prompt,
its settings and its seed, not on what else is in the batch.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from rlhf.data.encode import Ids
from rlhf.errors import EngineError, RolloutError
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.sequences import ActiveSequence, Decoding, TopLogprobs
from rlhf.serve.chat.text_stream import TextStream

if TYPE_CHECKING:
    from rlhf.serve.metrics import Metrics

Finish = Literal["stop", "length"]
SMOOTHING = 0.2  # weight of the newest answer in the mean duration
MAX_RETRY_S = 60


class QueueFullError(Exception):
    """The queue is full; a place may be free in `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """One answer to generate; (seed, sample) names its random stream."""

    prompt: Ids
    max_tokens: int
    decoding: Decoding
    seed: int
    sample: int = 0
    stops: tuple[str, ...] = ()
    num_likeliest: int | None = None


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A sampled token that is part of the text, and the character of the answer at which it begins."""

    id: int
    offset: int
    top_logprobs: TopLogprobs


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The new text of answer `index`; the last delta has `finish`. `num_tokens` counts all sampled so far, with EOS."""

    index: int
    text: str
    tokens: tuple[DrawnToken, ...] = ()
    finish: Finish | None = None
    num_tokens: int = 0


@dataclass(slots=True, eq=False)
class _Answer:
    """An answer being generated."""

    pending: PendingAnswers
    index: int
    sequence: ActiveSequence
    stream: TextStream
    eos_id: int
    requested_at: float = field(default_factory=time.monotonic)
    tokens: list[DrawnToken] = field(default_factory=list)

    def grow(self) -> TextDelta | None:
        """Reads the newest token; None while there is nothing to send."""
        sequence, stream = self.sequence, self.stream
        token, offset = sequence.tokens[-1], stream.num_settled
        is_eos = token == self.eos_id
        text = "" if is_eos else stream.push(token)
        if sequence.num_likeliest is not None and not is_eos:
            self.tokens.append(DrawnToken(token, offset, sequence.top_logprobs[-1]))
        finish: Finish | None = "stop" if is_eos or stream.stopped else "length" if sequence.ended else None
        if finish:
            text += stream.finish()
        elif not text:
            return None
        tokens = tuple(each for each in self.tokens if not stream.stopped or each.offset < stream.num_released)
        self.tokens = []
        return TextDelta(self.index, text, tokens, finish, len(sequence.tokens))


class PendingAnswers:
    """The answers to one request, read in the event loop that submitted it."""

    def __init__(self, batcher: Batcher, count: int) -> None:
        self._batcher, self._num_left = batcher, count
        self.loop = asyncio.get_running_loop()
        self.answers: list[_Answer] = []
        self._arrived: asyncio.Queue[TextDelta | Exception] = asyncio.Queue()

    def put(self, item: TextDelta | Exception) -> None:
        """Adds a delta, or ends the reading with an error. To be called in the event loop."""
        self._arrived.put_nowait(item)

    async def deltas(self) -> AsyncIterator[list[TextDelta]]:
        """All that arrived since the last time, until every answer has ended.

        Raises: the error of the model's thread, or the one given to `put`.
        """
        while self._num_left:
            arrived = [await self._arrived.get()]
            while not self._arrived.empty():
                arrived.append(self._arrived.get_nowait())
            deltas = [item for item in arrived if isinstance(item, TextDelta)]
            self._num_left -= sum(delta.finish is not None for delta in deltas)
            if deltas:
                yield deltas
            for item in arrived:
                if isinstance(item, Exception):
                    raise item

    def cancel(self) -> None:
        """Frees the slots of answers that have not ended; does nothing when all have."""
        self._batcher.cancel(self)


class StepDecoder(Protocol):
    """What makes the steps, in the model's thread alone: `rlhf.rollout.decoding.Decoder`, or an engine."""

    @property
    def num_running(self) -> int:
        """Answers in slots."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""
        ...

    def admit(self, answers: Iterable[ActiveSequence]) -> None: ...
    def cancel(self, answer: ActiveSequence) -> None: ...
    def clear(self) -> None: ...

    def step(self) -> Sequence[ActiveSequence]:
        """The answers that grew by a token. Raises: EngineError when no further step can be made."""
        ...

    def close(self) -> None: ...


class Batcher:
    """One model's thread.

    Args:
        decoder: makes the steps; it lets waiting answers in at once, and is closed with the thread.
        decode: ids to text without special tokens.
        num_slots: answers generated together.
        queue: further answers that may wait.
        observer: called from the model's thread.
    """

    def __init__(
        self,
        decoder: StepDecoder,
        eos_id: int,
        decode: Callable[[Sequence[int]], str],
        *,
        num_slots: int,
        queue: int,
        observer: Metrics,
    ) -> None:
        self._decoder = decoder
        self._eos_id, self._decode, self._observer = eos_id, decode, observer
        self.num_slots, self.capacity = num_slots, num_slots + queue
        self._changed = threading.Condition()
        self._arriving: list[_Answer] = []
        self._leaving: list[_Answer] = []
        self._answers: dict[ActiveSequence, _Answer] = {}
        self._num_open = 0
        self._mean_s = 1.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="rlhf-decode", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_running(self) -> int:
        """Answers in slots."""
        return self._decoder.num_running

    @property
    def num_waiting(self) -> int:
        """Answers in the queue."""
        return max(0, self._num_open - self._decoder.num_running)

    def submit(self, requests: Sequence[AnswerRequest]) -> PendingAnswers:
        """Queues all requests or none. To be called in the event loop that reads the answers.

        Raises: QueueFullError.
        """
        pending = PendingAnswers(self, len(requests))
        for index, request in enumerate(requests):
            draws = uniform_draws((request.seed, request.sample), request.max_tokens)
            sequence = ActiveSequence(
                request.prompt,
                draws,
                request.decoding,
                num_likeliest=request.num_likeliest,
                stream=(request.seed, request.sample),
            )
            stream = TextStream(self._decode, request.stops)
            pending.answers.append(_Answer(pending, index, sequence, stream, self._eos_id))
        with self._changed:
            if self._closing:
                raise QueueFullError(MAX_RETRY_S)
            if self._num_open + len(requests) > self.capacity:
                raise QueueFullError(self._retry_after())
            self._num_open += len(requests)
            self._arriving += pending.answers
            self._changed.notify()
        return pending

    def cancel(self, pending: PendingAnswers) -> None:
        """Abandons a request's answers; their slots are free at the next step."""
        with self._changed:
            self._leaving += pending.answers
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread; answers that have not ended fail."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._decoder.close()

    def _retry_after(self) -> float:
        rounds = math.ceil(max(1, self._num_open - self.num_slots) / self.num_slots)
        return min(MAX_RETRY_S, max(1.0, self._mean_s * rounds))

    def _run(self) -> None:
        while self._take():
            try:
                grown = self._decoder.step()
            except EngineError as error:  # it answers no more: the service is not healthy
                with self._changed:
                    self._closing = True
                sys.stderr.write(f"{error}\n")
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001  # one bad batch must not end the service
                self._decoder.clear()
                self._fail(error)
                continue
            self._send(grown)
            self._observer.step(len(grown))
        self._fail(RolloutError("the service is stopping"))

    def _take(self) -> bool:
        """Waits for work, admits new answers and drops cancelled ones; False when it is time to end."""
        with self._changed:
            while not (self._arriving or self._leaving or self._decoder.busy or self._closing):
                self._changed.wait()
            arriving, self._arriving = self._arriving, []
            leaving, self._leaving = self._leaving, []
            closing = self._closing
        self._answers |= {answer.sequence: answer for answer in arriving}
        if closing:
            return False
        self._decoder.admit(answer.sequence for answer in arriving)
        for answer in leaving:
            if answer.sequence in self._answers:
                self._forget(answer)
        return True

    def _send(self, grown: Sequence[ActiveSequence]) -> None:
        deltas: list[tuple[PendingAnswers, TextDelta]] = []
        now = time.monotonic()
        for sequence in grown:
            answer = self._answers[sequence]
            if len(sequence.tokens) == 1:
                self._observer.first_token(now - answer.requested_at)
            delta = answer.grow()
            if delta is None:
                continue
            deltas.append((answer.pending, delta))
            if delta.finish:
                self._mean_s += SMOOTHING * (now - answer.requested_at - self._mean_s)
                self._forget(answer)
        _deliver(deltas)

    def _forget(self, answer: _Answer) -> None:
        self._decoder.cancel(answer.sequence)
        del self._answers[answer.sequence]
        with self._changed:
            self._num_open -= 1

    def _fail(self, error: Exception) -> None:
        """Raises `error` for every reader of an answer that is lost."""
        answers = list(self._answers.values())
        for answer in answers:
            self._forget(answer)
        _deliver([(answer.pending, error) for answer in answers])


def _deliver(items: Sequence[tuple[PendingAnswers, TextDelta | Exception]]) -> None:
    """Hands items over to their event loops, each of which is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[PendingAnswers, TextDelta | Exception]]] = defaultdict(list)
    for pending, item in items:
        by_loop[pending.loop].append((pending, item))
    for loop, mine in by_loop.items():
        with suppress(RuntimeError):  # the loop has ended, and with it everyone who would read
            loop.call_soon_threadsafe(_put_all, mine)


def _put_all(items: Sequence[tuple[PendingAnswers, TextDelta | Exception]]) -> None:
    for pending, item in items:
        pending.put(item)
