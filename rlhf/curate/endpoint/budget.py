"""The budget of an endpoint: limits on requests and cost, and what was spent.

Before a request is sent, the most it can cost is reserved; afterwards its true cost is booked. So no limit is ever
exceeded, however many requests are in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.curate.endpoint.messages import EndpointRequest
from rlhf.errors import EndpointError

OVERHEAD_TOKENS = 64  # of the chat template around the turns of a request
PER_PRICE = 1000  # tokens per price


@dataclass(slots=True)
class Budget:
    """Limits and spending, in requests and in the currency of the prices.

    Args:
        max_requests: most requests to send; those that the service rejected (429, 5xx) do not count.
        max_cost: most currency units to spend; needs a price.
        price_in, price_out: currency units per 1,000 tokens of prompt and of answer.

    Raises: EndpointError for a limit that cannot be enforced.
    """

    max_requests: int | None = None
    max_cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    requests: int = field(default=0, init=False)
    prompt_tokens: int = field(default=0, init=False)
    completion_tokens: int = field(default=0, init=False)
    cost: float = field(default=0.0, init=False)
    _reserved: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.max_cost is not None and not (self.price_in > 0 or self.price_out > 0):
            fix = "give the prices of 1,000 tokens: --price-in 0.00015 --price-out 0.0006"
            raise EndpointError("a cost limit without prices", where="max_cost", fix=fix)
        for name in ("max_requests", "max_cost", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise EndpointError(f"is {value}", where=name, expected="0 or more")

    def worst_cost(self, request: EndpointRequest) -> float:
        """The most a request can cost: one token per byte of its prompt, and an answer of full length.

        Raises: EndpointError for a cost limit without a limit on the length of answers.
        """
        if request.max_tokens is None:
            if self.max_cost is not None:
                raise EndpointError("a cost limit needs a limit on the answers", where="max_tokens", fix="set it")
            return 0.0
        texts = [message["content"] for message in request.messages]
        if request.response_format is not None:
            texts.append(str(request.response_format))
        prompt_tokens = sum(len(text.encode()) for text in texts) + OVERHEAD_TOKENS
        return self.cost_of(prompt_tokens, request.max_tokens)

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / PER_PRICE

    def fits(self, worst_cost: float) -> bool:
        """Whether another request can be sent without exceeding a limit, whatever it costs."""
        if self.max_requests is not None and self.requests >= self.max_requests:
            return False
        return self.max_cost is None or self.cost + self._reserved + worst_cost <= self.max_cost * (1 + 1e-12)

    def reserve(self, worst_cost: float) -> None:
        """Counts a request before it is sent."""
        self.requests += 1
        self._reserved += worst_cost

    def settle(self, worst_cost: float, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Books the cost of a request; the reserved cost where the service gives no token counts."""
        self._reserved -= worst_cost
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        known = prompt_tokens or completion_tokens
        self.cost += self.cost_of(prompt_tokens, completion_tokens) if known else worst_cost

    def release(self, worst_cost: float) -> None:
        """Takes back a request that the service rejected and does not bill."""
        self.requests -= 1
        self._reserved -= worst_cost
