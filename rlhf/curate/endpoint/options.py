"""How an endpoint is asked: the flags that every command with an endpoint has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config.flags import flag

if TYPE_CHECKING:
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.client import Endpoint


@dataclass(frozen=True)
class EndpointOptions:
    """Everything about an endpoint but its address, its model and its budget."""

    api_key_env: str = flag(
        "OPENAI_API_KEY",
        "environment variable that holds the API key; a service on this machine needs none",
        metavar="VARIABLE",
    )
    concurrency: int = flag(8, "requests in flight at once")
    requests_per_minute: float | None = flag(None, "send at most this many requests per minute", metavar="N")
    timeout_s: float = flag(120.0, "seconds one answer may take", name="--timeout", metavar="S")
    retries: int = flag(5, "further attempts at a request that failed temporarily")
    cache: Path | None = flag(
        None,
        "keeps the answers paid for so far; the same command continues from them (default: OUT.answers.sqlite)",
        metavar="FILE",
    )

    def open(self, url: str, model: str, budget: Budget, cache: Path) -> Endpoint:
        """The endpoint; `cache` is used where the options name none."""
        from rlhf.curate.endpoint.client import Endpoint

        return Endpoint(
            url,
            model,
            api_key=self.api_key_env,
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            timeout_s=self.timeout_s,
            retries=self.retries,
            budget=budget,
            cache=self.cache or cache,
        )
