"""A client of any OpenAI-compatible chat endpoint: concurrent requests, answers in order, nothing paid for twice.

    with Endpoint("http://127.0.0.1:8000/v1", "my-model", cache=Path("answers.sqlite")) as endpoint:
        for answer in endpoint.complete_all(requests):
            ...

Requests run in an event loop on a thread of its own, so that they continue while the caller processes an answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rlhf.curate.endpoint.budget import Budget
from rlhf.curate.endpoint.cache import AnswerCache, cache_key
from rlhf.curate.endpoint.messages import ChatAnswer, ChatMessage, EndpointRequest
from rlhf.curate.endpoint.options import EndpointOptions
from rlhf.curate.endpoint.worker import Service, Worker
from rlhf.errors import require_packages

__all__ = ["ChatAnswer", "ChatMessage", "Endpoint", "EndpointRequest", "Usage"]

READ_AHEAD = 4  # times the concurrency: requests taken from the caller in advance


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests, tokens and cost since an endpoint was opened; cached answers have neither tokens nor cost."""

    num_sent: int
    num_cached: int
    num_retries: int
    prompt_tokens: int
    completion_tokens: int
    cost: float

    def described(self) -> str:
        """One line for the terminal."""
        again = f", {self.num_retries} retries after a failure" if self.num_retries else ""
        cost = f", cost {self.cost:.4f}" if self.cost else ""
        tokens = f"{self.prompt_tokens} + {self.completion_tokens} tokens"
        return f"{self.num_sent} requests{again} ({tokens}{cost}); {self.num_cached} answers from the cache"


class Endpoint:
    """A chat endpoint.

    Args:
        url: base address, which ends in /v1 for most services.
        model: name of the model at the service.
        options: rate, retries and time limit of the requests.
        budget: limits on requests and cost, which also counts what was spent; by default that of the options.
        cache: SQLite file of answers, unless the options name one; None stores none.

    Raises: EndpointError for arguments that cannot be used; ConfigError when openai is not installed; ArtifactError
        for a cache that cannot be read or written.
    """

    def __init__(
        self,
        url: str,
        model: str,
        options: EndpointOptions | None = None,
        *,
        budget: Budget | None = None,
        cache: Path | None = None,
    ) -> None:
        options = options or EndpointOptions()
        cache = options.cache or cache
        kept = f"the answers so far are in {cache}" if cache is not None else ""
        self.service = Service(url, model, options, kept)
        require_packages("openai", extra="llm", needed_by="an endpoint")
        self.service.key()
        self.budget = budget if budget is not None else options.budget()
        self._cache = AnswerCache(cache) if cache is not None else None
        self._in_flight: dict[str, Future[ChatAnswer]] = {}
        self._num_cached = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._worker = asyncio.run_coroutine_threadsafe(self._start_worker(), self._loop).result()

    def complete_all(self, requests: Iterable[EndpointRequest]) -> Iterator[ChatAnswer]:
        """The answers, in the order of the requests; of many requests, a few times `concurrency` are held at once.

        How many requests have been taken from `requests` when an answer is yielded does not depend on timing.

        Raises: EndpointError in place of the answer to the first request that fails permanently; BudgetError at the
            first request that might exceed the budget. All answers before it have been yielded.
        """
        source = iter(requests)
        window: deque[Future[ChatAnswer]] = deque()
        try:
            while True:
                while len(window) < READ_AHEAD * self.service.options.concurrency:
                    request = next(source, None)
                    if request is None:
                        break
                    window.append(self._submit(request))
                if not window:
                    return
                answer = window.popleft().result()
                self._num_cached += answer.cached
                yield answer
        finally:
            for future in window:
                future.cancel()

    def complete(self, request: EndpointRequest) -> ChatAnswer:
        """The answer to one request. Raises as `complete_all` does."""
        return next(self.complete_all([request]))

    @property
    def usage(self) -> Usage:
        """Requests and cost so far."""
        budget = self.budget
        return Usage(
            num_sent=budget.requests,
            num_cached=self._num_cached,
            num_retries=self._worker.num_retries,
            prompt_tokens=budget.prompt_tokens,
            completion_tokens=budget.completion_tokens,
            cost=budget.cost,
        )

    def close(self) -> None:
        """Closes connections, thread and cache; requests in flight are cancelled."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, request: EndpointRequest) -> Future[ChatAnswer]:
        if self._cache is None:
            return asyncio.run_coroutine_threadsafe(self._worker.answer(request), self._loop)
        key = cache_key(self.service.url, self.service.model, request)
        same = self._in_flight.get(key)
        if same is not None and not same.done():
            return asyncio.run_coroutine_threadsafe(_answer_of_another(same), self._loop)
        cached = self._cache.get(key)
        if cached is not None:
            done: Future[ChatAnswer] = Future()
            done.set_result(cached.as_cached())
            return done
        future = asyncio.run_coroutine_threadsafe(self._answer_and_keep(key, request, self._cache), self._loop)
        self._in_flight[key] = future
        future.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return future

    async def _answer_and_keep(self, key: str, request: EndpointRequest, cache: AnswerCache) -> ChatAnswer:
        answer = await self._worker.answer(request)
        cache.put(key, answer)
        return answer

    async def _start_worker(self) -> Worker:
        return Worker(self.service, self.budget)

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._worker.close()


async def _answer_of_another(future: Future[ChatAnswer]) -> ChatAnswer:
    return (await asyncio.wrap_future(future)).as_cached()
