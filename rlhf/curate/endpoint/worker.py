"""The asynchronous half of an endpoint: each request is paced, budgeted, sent, and retried on failure."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rlhf.config.load import secret
from rlhf.curate.endpoint.budget import Budget
from rlhf.curate.endpoint.failures import FailedAttempt, failure_of
from rlhf.curate.endpoint.messages import ChatAnswer, EndpointRequest, answer_of
from rlhf.curate.endpoint.options import EndpointOptions
from rlhf.errors import BudgetError, EndpointError

OLDER_LIMIT, NEWER_LIMIT = "max_tokens", "max_completion_tokens"  # services of reasoning models want the newer name
LONGEST_PAUSE_S = 60.0  # between two attempts, unless the service asks for more


@dataclass(slots=True)
class RateLimiter:
    """Admits requests in order, as fast as the rate allows and while the budget lasts."""

    budget: Budget
    num_in_flight: int = 0
    _next_s: float = 0.0
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(self, worst_cost: float) -> None:
        """Waits for its turn. Raises BudgetError when no request in flight could turn out cheaper than reserved."""
        async with self._line:
            while not self.budget.fits(worst_cost):
                if not self.num_in_flight:
                    raise BudgetError(_spent(self.budget, worst_cost), fix="raise the limit and run again")
                self._settled.clear()
                await self._settled.wait()
            clock = asyncio.get_running_loop().time
            while (wait_s := self._next_s - clock()) > 0:
                await asyncio.sleep(wait_s)
            if (rate := self.budget.limits.requests_per_minute) is not None:
                self._next_s = clock() + 60 / rate
            self.budget.reserve(worst_cost)
            self.num_in_flight += 1

    def pause(self, seconds: float) -> None:
        """Delays all requests, as a service asks that receives too many."""
        self._next_s = max(self._next_s, asyncio.get_running_loop().time() + seconds)

    def finish(self) -> None:
        """Notes that a request is no longer in flight and its cost is booked."""
        self.num_in_flight -= 1
        self._settled.set()


class Worker:
    """Answers requests from inside an event loop.

    kept: what an error says about the earlier answers, "" if they are lost.

    Raises: EndpointError for what is not an address, and for a service on another machine without a key.
    """

    def __init__(self, url: str, model: str, options: EndpointOptions, budget: Budget, kept: str) -> None:
        import openai

        self._url, self._model, self._options, self._budget, self._kept = url, model, options, budget, kept
        self._slots = asyncio.Semaphore(options.concurrency)
        self._limiter = RateLimiter(budget)
        self._failed: EndpointError | None = None
        self._reached = self._answered = False
        self._limit_name = OLDER_LIMIT
        self.num_retries = 0
        local, key = _on_loopback(url), secret(options.api_key_env)
        if not key and not local:
            fix = f"export {options.api_key_env}=..., or name another variable with --api-key-env"
            raise EndpointError(f"{options.api_key_env} is not set", where=url, expected="a key", fix=fix)
        # Requests to this machine must not go through a proxy of the environment.
        http = openai.DefaultAsyncHttpxClient(trust_env=not local)
        self._client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=url, timeout=options.timeout, max_retries=0, http_client=http
        )

    async def answer(self, request: EndpointRequest) -> ChatAnswer:
        """The answer to a request. Raises EndpointError on a permanent failure; nothing is sent after that."""
        async with self._slots:
            if self._failed is not None:
                raise self._failed
            try:
                return await self._with_retries(request)
            except EndpointError as error:
                self._failed = error
                raise

    async def close(self) -> None:
        await self._client.close()

    async def _with_retries(self, request: EndpointRequest) -> ChatAnswer:
        attempt = 0
        while True:
            limit_name = self._limit_name
            outcome = await self._attempt(request)
            if isinstance(outcome, ChatAnswer):
                return outcome
            if outcome.filtered:
                return ChatAnswer("", "content_filter", refused=True)
            if limit_name == OLDER_LIMIT and NEWER_LIMIT in outcome.problem and not outcome.transient:
                self._limit_name = NEWER_LIMIT
                continue
            if not outcome.transient or (outcome.unreachable and not self._reached):
                raise self._error(outcome.problem, outcome.fix)
            if attempt == self._options.retries:
                raise self._error(f"no answer in {attempt + 1} attempts; the last: {outcome.problem}", outcome.fix)
            await self._back_off(outcome, attempt)
            attempt += 1
            self.num_retries += 1

    async def _attempt(self, request: EndpointRequest) -> ChatAnswer | FailedAttempt:
        worst = self._budget.worst_cost(request)
        await self._limiter.admit(worst)
        try:
            async with asyncio.timeout(self._options.timeout):
                reply = await self._post(request)
            answer = answer_of(reply)
        except asyncio.CancelledError:
            self._budget.settle(worst)  # the service may bill it
            raise
        except Exception as error:  # noqa: BLE001 - failure_of classifies it
            failure = failure_of(error)
            (self._budget.settle if failure.billed else self._budget.release)(worst)
            self._reached = self._reached or not failure.unreachable
            return failure
        else:
            self._budget.settle(worst, answer.prompt_tokens, answer.completion_tokens)
            self._reached = self._answered = True
            return answer
        finally:
            self._limiter.finish()

    async def _post(self, request: EndpointRequest) -> str:
        body: dict[str, Any] = request.body(self._model)
        if OLDER_LIMIT in body:
            body[self._limit_name] = body.pop(OLDER_LIMIT)
        reply = await self._client.chat.completions.with_raw_response.create(**body)
        return str(reply.http_response.text)

    def _error(self, problem: str, fix: str) -> EndpointError:
        kept = f"; then run again: {self._kept}" if self._kept and self._answered else ""
        return EndpointError(problem, where=self._url, fix=f"{fix}{kept}")

    async def _back_off(self, failure: FailedAttempt, attempt: int) -> None:
        pause_s = min(LONGEST_PAUSE_S, self._options.backoff_s * 2**attempt) * random.uniform(0.75, 1.25)
        if failure.retry_after_s:
            self._limiter.pause(failure.retry_after_s)
            pause_s = failure.retry_after_s
        await asyncio.sleep(pause_s)


def _spent(budget: Budget, worst_cost: float) -> str:
    limits = budget.limits
    if limits.max_requests is not None and budget.requests >= limits.max_requests:
        return f"the limit of {limits.max_requests} requests is reached"
    return f"spent {budget.cost:.4f} of {limits.max_cost:.4f}; the next request could cost {worst_cost:.4f}"


def _on_loopback(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointError(
            f"{url!r} is not an address", where="endpoint", expected="a URL such as http://127.0.0.1:8000/v1"
        )
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return parts.hostname == "localhost"
