"""Any OpenAI-compatible chat endpoint: many requests at once, answers in order, nothing paid for twice.

    with Endpoint("http://127.0.0.1:8000/v1", "my-model", cache=Path("answers.sqlite")) as endpoint:
        for answer in endpoint.complete_all(requests):
            ...

Requests run in an event loop of their own thread, so that they go on while the caller works on an answer.
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
from rlhf.errors import EndpointError

__all__ = ["ChatAnswer", "ChatMessage", "Endpoint", "EndpointRequest", "Usage"]

READ_AHEAD = 4  # requests taken from the caller's, times the concurrency


@dataclass(frozen=True, slots=True)
class Usage:
    """What an endpoint has been asked since it was opened. Tokens and cost are those of requests sent."""

    num_sent: int
    num_cached: int
    num_retries: int
    prompt_tokens: int
    completion_tokens: int
    cost: float

    def described(self) -> str:
        """One line for the terminal."""
        again = f", {self.num_retries} repeated after a failure" if self.num_retries else ""
        cost = f", cost {self.cost:.4f}" if self.cost else ""
        tokens = f"{self.prompt_tokens} + {self.completion_tokens} tokens"
        return f"{self.num_sent} requests{again} ({tokens}{cost}); {self.num_cached} answers from the cache"


class Endpoint:
    """A chat endpoint.

    Args:
        url: base address, which ends in /v1 for most services.
        model: name of the model, as the service knows it.
        api_key: environment variable that holds the key; none is needed for a service on this machine.
        concurrency: requests under way at once.
        requests_per_minute: sent at most, evenly spaced; None for as many as the service takes.
        timeout_s: for a whole answer.
        retries: further attempts at a request that failed in a way that may pass (429, 5xx, slow answers, cut
            connections, replies that are no JSON); the pause doubles from `backoff_s`, or is what the service asks.
        budget: limits on requests and cost; also counts what was spent.
        cache: SQLite file of answers; None keeps none.

    Raises: EndpointError for what cannot be used, and when the `openai` package is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = EndpointOptions.api_key_env,
        concurrency: int = EndpointOptions.concurrency,
        requests_per_minute: float | None = None,
        timeout_s: float = EndpointOptions.timeout_s,
        retries: int = EndpointOptions.retries,
        backoff_s: float = 1.0,
        budget: Budget | None = None,
        cache: Path | None = None,
    ) -> None:
        keeps = f"the answers so far are in {cache}" if cache is not None else ""
        self.service = Service(
            url, model, api_key, concurrency, requests_per_minute, timeout_s, retries, backoff_s, keeps
        )
        _check_client()
        self.service.key()
        self.budget = budget if budget is not None else Budget()
        self._cache = AnswerCache(cache) if cache is not None else None
        self._under_way: dict[str, Future[ChatAnswer]] = {}
        self._num_cached = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._worker = asyncio.run_coroutine_threadsafe(self._start_worker(), self._loop).result()

    def complete_all(self, requests: Iterable[EndpointRequest]) -> Iterator[ChatAnswer]:
        """The answers, in the order of the requests, which may be many: a few times `concurrency` are held at once.

        Which requests have been taken from `requests` when an answer is yielded does not depend on timing.

        Raises: EndpointError, in place of its answer, at the first request that fails for good; BudgetError at the
            first that might exceed the budget. The answers before it have been yielded.
        """
        source = iter(requests)
        window: deque[Future[ChatAnswer]] = deque()
        try:
            while True:
                while len(window) < READ_AHEAD * self.service.concurrency:
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
        """What has been asked and spent so far."""
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
        """Ends connections, the thread and the cache; requests under way are given up."""
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
        same = self._under_way.get(key)
        if same is not None and not same.done():
            return asyncio.run_coroutine_threadsafe(_answer_of_another(same), self._loop)
        cached = self._cache.get(key)
        if cached is not None:
            done: Future[ChatAnswer] = Future()
            done.set_result(cached.as_cached())
            return done
        future = asyncio.run_coroutine_threadsafe(self._answer_and_keep(key, request, self._cache), self._loop)
        self._under_way[key] = future
        future.add_done_callback(lambda _: self._under_way.pop(key, None))
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


def _check_client() -> None:
    try:
        import openai  # noqa: F401
    except ImportError:
        raise EndpointError("the openai package is missing", fix="pip install 'rlhf[llm]'") from None
