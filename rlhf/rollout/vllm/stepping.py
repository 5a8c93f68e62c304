"""The decode loop of the service by an engine: the steps of `Decoder`, made by vLLM in its own process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from rlhf.rollout.sequences import ActiveSequence, TopLogprobs
from rlhf.rollout.vllm.client import VllmRollout, stream_seed


class EngineDecoder:
    """Answers of an engine, token by token; used by one thread at a time.

    Args:
        engine: has read a model folder; log-probabilities are those of the model's own distribution.
        num_slots: answers that the engine decodes together; more wait in it.
    """

    def __init__(self, engine: VllmRollout, *, num_slots: int) -> None:
        self._engine, self._num_slots = engine, num_slots
        self._count = 0
        self._names: dict[ActiveSequence, str] = {}
        self._open: dict[str, ActiveSequence] = {}
        self._arriving: list[str] = []
        self._cancelled: list[str] = []
        self._arrived: dict[str, deque[tuple[int, TopLogprobs | None]]] = {}
        self._last: set[str] = set()  # the engine sends no more of these

    @property
    def num_running(self) -> int:
        """Answers that have not ended, and are not waiting for a slot."""
        return min(self._num_slots, len(self._open))

    @property
    def busy(self) -> bool:
        return bool(self._open or self._cancelled)

    def admit(self, answers: Iterable[ActiveSequence]) -> None:
        """Sends answers to the engine with the next step. Their `ends` are not read: the caller cancels an answer."""
        for answer in answers:
            name = str(self._count)
            self._count += 1
            self._names[answer], self._open[name], self._arrived[name] = name, answer, deque()
            self._arriving.append(name)

    def cancel(self, answer: ActiveSequence) -> None:
        """Ends an answer; the engine hears of it with the next step."""
        answer.ended = True
        name = self._names.pop(answer, None)
        if name is None:
            return
        if name in self._arriving:
            self._arriving.remove(name)
        elif name not in self._last:
            self._cancelled.append(name)
        self._forget(name)

    def clear(self) -> None:
        """Ends all answers."""
        for answer in list(self._names):
            self.cancel(answer)

    def close(self) -> None:
        """Ends the engine."""
        self._engine.close()

    def step(self) -> list[ActiveSequence]:
        """One step of the engine; the answers that grew, each by one token.

        Raises: EngineError when the engine ended or hangs: it answers no more.
        """
        if not any(self._arrived.values()):
            self._ask()
        grown = []
        for name, arrived in list(self._arrived.items()):
            if arrived:
                grown.append(self._open[name])
                self._grow(name, *arrived.popleft())
        return grown

    def _ask(self) -> None:
        answers = [self._open[name] for name in self._arriving]
        message = self._engine.process.request(
            "step",
            "stepped",
            np.concatenate([np.empty(0, np.int32), *(each.prompt for each in answers)]).astype(np.int32).tobytes(),
            lengths=[len(each.prompt) for each in answers],
            admitted=[
                {"name": name, "sampling": self._sampling(each)}
                for name, each in zip(self._arriving, answers, strict=True)
            ],
            cancelled=self._cancelled,
        )
        self._arriving, self._cancelled = [], []
        for each in message.fields["grown"]:
            if each["name"] in self._open:
                self._receive(each["name"], each["tokens"], each.get("likeliest"), ended=each["ended"])

    def _sampling(self, answer: ActiveSequence) -> dict[str, object]:
        temperature, top_k, top_p = answer.decoding
        return {
            "seed": stream_seed(answer.stream),
            "max_tokens": answer.limit,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "eos": list(self._engine.eos),
            "likeliest": answer.num_likeliest,
        }

    def _receive(self, name: str, tokens: Sequence[int], likeliest: Sequence[list] | None, *, ended: bool) -> None:
        count = self._open[name].num_likeliest
        for place, token in enumerate(tokens):
            known = None if likeliest is None else likeliest[place]
            top = known and TopLogprobs(known[0], tuple((int(each), value) for each, value in known[1:][:count]))
            self._arrived[name].append((token, top or None))
        if ended:
            self._last.add(name)

    def _grow(self, name: str, token: int, top: TopLogprobs | None) -> None:
        answer = self._open[name]
        if top is not None:
            answer.top_logprobs.append(top)
        answer.append(token, float("nan") if top is None else top.logprob, self._engine.eos[0])
        if name in self._last and not self._arrived[name]:
            answer.ended = True
        if answer.ended:
            self._names.pop(answer)
            if name not in self._last:
                self._cancelled.append(name)
            self._forget(name)

    def _forget(self, name: str) -> None:
        del self._open[name], self._arrived[name]
        self._last.discard(name)
