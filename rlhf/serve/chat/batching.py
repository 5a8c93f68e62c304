"""Requests of many clients in one decode loop: a thread steps the model, pieces of text go to those who asked.

Waiting answers enter a slot as soon as one is free, between two tokens of the others. An answer depends on its prompt,
its settings and its seed, not on who else is in the batch.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rlhf.data.encode import Ids
from rlhf.errors import RolloutError
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.decoding import ActiveSequence, Decoder, Decoding, TopLogprobs
from rlhf.serve.chat.text_stream import TextStream

Finish = Literal["stop", "length"]
SMOOTHING = 0.2  # weight of the newest answer in the mean duration
MAX_RETRY_S = 60


class QueueFullError(Exception):
    """As many answers wait as may; `retry_after_s` is when one may have left."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted: (seed, sample) names its random stream."""

    prompt: Ids
    max_tokens: int
    decoding: Decoding
    seed: int
    sample: int = 0
    stops: tuple[str, ...] = ()
    num_likeliest: int | None = None


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A token that is part of the text, and where in the answer's text it begins (characters)."""

    id: int
    offset: int
    top_logprobs: TopLogprobs


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What is new of answer `index`; the last one says why it ends. `num_tokens` are those drawn so far, EOS too."""

    index: int
    text: str
    tokens: tuple[DrawnToken, ...] = ()
    finish: Finish | None = None
    num_tokens: int = 0


class BatchObserver(Protocol):
    """What is told of the work, from the model's thread."""

    def first_token(self, seconds: float) -> None: ...
    def step(self, tokens: int) -> None: ...


@dataclass(slots=True, eq=False)
class _Line:
    """An answer on its way to its ticket."""

    ticket: Ticket
    index: int
    answer: ActiveSequence
    text: TextStream
    asked_at: float
    eos_id: int
    tokens: list[DrawnToken] = field(default_factory=list)

    def grow(self) -> TextDelta | None:
        """Reads the newest token; None while there is nothing to send."""
        answer, stream = self.answer, self.text
        token, offset = answer.tokens[-1], stream.num_settled
        ended_itself = token == self.eos_id
        released = "" if ended_itself else stream.push(token)
        if answer.num_likeliest is not None and not ended_itself:
            self.tokens.append(DrawnToken(token, offset, answer.top_logprobs[-1]))
        finish: Finish | None = None
        if stream.stopped or ended_itself:
            finish = "stop"
        elif answer.ended:
            finish = "length"
        if finish:
            released += stream.finish()
        if not released and not finish:
            return None
        kept = tuple(each for each in self.tokens if not stream.stopped or each.offset < stream.num_released)
        self.tokens = []
        return TextDelta(self.index, released, kept, finish, len(answer.tokens))


class Ticket:
    """The answers to one request, read in the event loop they were asked for in."""

    def __init__(self, batcher: Batcher, count: int) -> None:
        self._batcher, self._left = batcher, count
        self.loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[TextDelta | Exception] = asyncio.Queue()
        self.lines: list[_Line] = []

    def put(self, item: TextDelta | Exception) -> None:
        """Called in the event loop."""
        self._arrived.put_nowait(item)

    async def pieces(self) -> AsyncIterator[list[TextDelta]]:
        """Whatever has come since the last time, until every answer has ended.

        Raises: what went wrong in the model's thread, or what `put` was given.
        """
        while self._left:
            found = [await self._arrived.get()]
            while not self._arrived.empty():
                found.append(self._arrived.get_nowait())
            good = [item for item in found if isinstance(item, TextDelta)]
            self._left -= sum(piece.finish is not None for piece in good)
            if good:
                yield good
            for item in found:
                if isinstance(item, Exception):
                    raise item

    def cancel(self) -> None:
        """Frees the slots of answers that have not ended; nothing happens when all have."""
        self._batcher.cancel(self)


class Batcher:
    """One model's thread.

    Args:
        decode: ids to text without special tokens.
        num_slots: answers written together.
        queue: further answers that may wait.
    """

    def __init__(
        self,
        model: Any,
        eos_id: int,
        decode: Callable[[Sequence[int]], str],
        *,
        num_slots: int,
        queue: int,
        watch: BatchObserver,
    ) -> None:
        self._decoder = Decoder(model, eos_id, num_slots=num_slots, enter_above=1.0)
        self._eos_id, self._decode, self._watch = eos_id, decode, watch
        self.num_slots, self.capacity = num_slots, num_slots + queue
        self._changed = threading.Condition()
        self._arriving: list[_Line] = []
        self._leaving: list[_Line] = []
        self._lines: dict[ActiveSequence, _Line] = {}
        self._num_open = 0
        self._mean_s = 1.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="rlhf-decode", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the model's thread works."""
        return self._thread.is_alive()

    @property
    def num_running(self) -> int:
        """Answers in slots."""
        return self._decoder.num_running

    @property
    def num_waiting(self) -> int:
        """Answers in the queue."""
        return max(0, self._num_open - self._decoder.num_running)

    def submit(self, asks: Sequence[Ask]) -> Ticket:
        """Queues answers; all of them or none. Call it in the event loop that reads the ticket.

        Raises: QueueFullError.
        """
        ticket, now = Ticket(self, len(asks)), time.monotonic()
        for index, ask in enumerate(asks):
            draws = uniform_draws((ask.seed, ask.sample), ask.max_tokens)
            answer = ActiveSequence(ask.prompt, draws, ask.decoding, num_likeliest=ask.num_likeliest)
            text = TextStream(self._decode, ask.stops)
            ticket.lines.append(_Line(ticket, index, answer, text, now, self._eos_id))
        with self._changed:
            if self._closing:
                raise QueueFullError(MAX_RETRY_S)
            if self._num_open + len(asks) > self.capacity:
                raise QueueFullError(self._retry_after())
            self._num_open += len(asks)
            self._arriving += ticket.lines
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Lets a request's answers go; their slots are free at the next step."""
        with self._changed:
            self._leaving += ticket.lines
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread; what is being written is given up."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _retry_after(self) -> float:
        rounds = math.ceil(max(1, self._num_open - self.num_slots) / self.num_slots)
        return min(MAX_RETRY_S, max(1.0, self._mean_s * rounds))

    def _run(self) -> None:
        while self._take():
            try:
                grown = self._decoder.step()
            except Exception as error:  # noqa: BLE001  # one bad batch must not end the service
                self._decoder.clear()
                self._fail(error)
                continue
            self._send(grown)
            self._watch.step(len(grown))
        self._fail(RolloutError("the service is stopping"))

    def _take(self) -> bool:
        """Waits for work, and takes in who comes and who goes; False when it is time to end."""
        with self._changed:
            while not (self._arriving or self._leaving or self._decoder.busy or self._closing):
                self._changed.wait()
            arriving, self._arriving = self._arriving, []
            leaving, self._leaving = self._leaving, []
            if self._closing:
                self._lines |= {line.answer: line for line in arriving}
                return False
        self._lines |= {line.answer: line for line in arriving}
        self._decoder.admit(line.answer for line in arriving)
        for line in leaving:
            if line.answer in self._lines:
                self._decoder.cancel(line.answer)
                self._forget(line)
        return True

    def _send(self, grown: Sequence[ActiveSequence]) -> None:
        batches: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, TextDelta | Exception]]] = defaultdict(list)
        now = time.monotonic()
        for answer in grown:
            line = self._lines[answer]
            if len(answer.tokens) == 1:
                self._watch.first_token(now - line.asked_at)
            piece = line.grow()
            if piece is None:
                continue
            batches[line.ticket.loop].append((line.ticket, piece))
            if piece.finish:
                self._decoder.cancel(answer)
                self._mean_s += SMOOTHING * (now - line.asked_at - self._mean_s)
                self._forget(line)
        for loop, batch in batches.items():
            _hand_over(loop, batch)

    def _forget(self, line: _Line) -> None:
        del self._lines[line.answer]
        with self._changed:
            self._num_open -= 1

    def _fail(self, error: Exception) -> None:
        """Tells everyone whose answers are lost."""
        for line in list(self._lines.values()):
            _hand_over(line.ticket.loop, [(line.ticket, error)])
            self._forget(line)


def _hand_over(loop: asyncio.AbstractEventLoop, batch: Sequence[tuple[Ticket, TextDelta | Exception]]) -> None:
    """One wake-up of the loop for all that a step brought."""

    def put_all() -> None:
        for ticket, item in batch:
            ticket.put(item)

    with suppress(RuntimeError):  # the loop has ended, and with it everyone who would read
        loop.call_soon_threadsafe(put_all)
