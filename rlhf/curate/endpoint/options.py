"""How commands use chat endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf.config.flags import flag
from rlhf.errors import EndpointError


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """How a command uses an endpoint, and what it may cost.

    Raises: EndpointError for a value out of range, or a limit that cannot be enforced.
    """

    api_key_env: str = flag(
        "OPENAI_API_KEY",
        "environment variable that holds the key; not needed for a service on this machine",
        metavar="VARIABLE",
    )
    concurrency: int = flag(8, "concurrent requests")
    requests_per_minute: float | None = flag(None, "most requests per minute", metavar="N")
    timeout: float = flag(120.0, "seconds that an answer may take", metavar="S")
    retries: int = flag(5, "retries of a request after a transient failure")
    max_requests: int | None = flag(None, "stop before sending more requests")
    max_cost: float | None = flag(None, "stop before spending more; needs the prices", metavar="COST")
    price_in: float = flag(0.0, "price of 1,000 prompt tokens", metavar="PRICE")
    price_out: float = flag(0.0, "price of 1,000 answer tokens", metavar="PRICE")
    cache: Path | None = flag(
        None,
        "stored answers; the same command continues from them and pays for nothing twice (default: OUT.answers.sqlite)",
        metavar="FILE",
    )

    backoff_s: float = 1.0  # pause before the first retry; it doubles with every further one

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0:
            raise EndpointError("concurrency, retries or timeout out of range", expected="at least 1, 0, above 0")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise EndpointError(f"is {self.requests_per_minute}", where="requests_per_minute", expected="above 0")
        for name in ("max_requests", "max_cost", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise EndpointError(f"is {value}", where=name, expected="0 or more")
        if self.max_cost is not None and not (self.price_in or self.price_out):
            fix = "give the prices of 1,000 tokens: --price-in 0.00015 --price-out 0.0006"
            raise EndpointError("a cost limit without prices", where="max_cost", fix=fix)


def answers_cache(out: Path) -> Path:
    """Where a command that writes `out` stores answers by default."""
    return out.with_name(f"{out.name}.answers.sqlite")
