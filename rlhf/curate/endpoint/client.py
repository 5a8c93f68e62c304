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
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

from pydantic import TypeAdapter

from rlhf.artifacts.database import Database
from rlhf.curate.endpoint.budget import Budget
from rlhf.curate.endpoint.messages import ChatAnswer, EndpointRequest
from rlhf.curate.endpoint.options import EndpointOptions
from rlhf.curate.endpoint.worker import Worker
from rlhf.errors import require_packages

READ_AHEAD = 4  # times the concurrency: requests taken from the caller in advance
CACHE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
_ANSWER = TypeAdapter(ChatAnswer)


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


class Endpoint(AbstractContextManager["Endpoint"]):
    """A chat endpoint.

    Args:
        url: base address, which ends in /v1 for most services.
        model: name of the model at the service.
        options: rate, retries, time limit and budget of the requests.
        budget: what was spent so far, where several endpoints share the limits of the options.
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
        self.url, self.model, self._options = url, model, options or EndpointOptions()
        self.budget = budget if budget is not None else Budget(self._options)
        cache = self._options.cache or cache
        kept = f"the answers so far are in {cache}" if cache is not None else ""
        require_packages("openai", extra="llm", needed_by="an endpoint")
        self._worker = Worker(url, model, self._options, self.budget, kept)
        self._cache = Database(cache, CACHE, option="--cache", version=2) if cache is not None else None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of the requests under way
        self._num_cached = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

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
                room = READ_AHEAD * self._options.concurrency - len(window)
                window.extend(
                    asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)
                    for request in islice(source, room)
                )
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
        spent = self.budget
        tokens = spent.prompt_tokens, spent.completion_tokens
        return Usage(spent.requests, self._num_cached, self._worker.num_retries, *tokens, spent.cost)

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

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _answer(self, request: EndpointRequest) -> ChatAnswer:
        if self._cache is None:
            return await self._worker.answer(request)
        key = request.key(self.url, self.model)
        async with self._locks.setdefault(key, asyncio.Lock()):  # equal requests wait for the answer to the first
            found = self._cache.value("SELECT answer FROM answers WHERE key = ?", key)
            if found is not None:
                return replace(_ANSWER.validate_json(found), cached=True)
            answer = await self._worker.answer(request)
            kept = _ANSWER.dump_json(answer).decode()
            self._cache.run("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, kept)
            return answer

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._worker.close()
