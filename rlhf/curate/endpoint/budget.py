"""The budget of an endpoint: limits on requests and cost, and what was spent.

Before a request is sent, the most it can cost is reserved; afterwards its true cost is booked. So no limit is ever
exceeded, however many requests are in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.curate.endpoint.messages import EndpointRequest
from rlhf.curate.endpoint.options import EndpointOptions
from rlhf.errors import EndpointError

OVERHEAD_TOKENS = 64  # of the chat template around the turns of a request
PER_PRICE = 1000  # tokens per price


@dataclass(slots=True)
class Budget:
    """What was spent of the limits of the options, in requests and in the currency of their prices.

    Requests that the service rejected (429, 5xx) do not count.
    """

    limits: EndpointOptions
    requests: int = field(default=0, init=False)
    prompt_tokens: int = field(default=0, init=False)
    completion_tokens: int = field(default=0, init=False)
    cost: float = field(default=0.0, init=False)
    _reserved: float = field(default=0.0, init=False)

    def worst_cost(self, request: EndpointRequest) -> float:
        """The most a request can cost: one token per byte of its prompt, and an answer of full length.

        Raises: EndpointError for a cost limit without a limit on the length of answers.
        """
        if request.max_tokens is None:
            if self.limits.max_cost is not None:
                raise EndpointError("a cost limit needs a limit on the answers", where="max_tokens", fix="set it")
            return 0.0
        texts = [message["content"] for message in request.messages]
        if request.response_format is not None:
            texts.append(str(request.response_format))
        prompt_tokens = sum(len(text.encode()) for text in texts) + OVERHEAD_TOKENS
        return self.cost_of(prompt_tokens, request.max_tokens)

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.limits.price_in + completion_tokens * self.limits.price_out) / PER_PRICE

    def fits(self, worst_cost: float) -> bool:
        """Whether another request can be sent without exceeding a limit, whatever it costs."""
        if self.limits.max_requests is not None and self.requests >= self.limits.max_requests:
            return False
        return self.limits.max_cost is None or self.cost + self._reserved + worst_cost <= self.limits.max_cost * (
            1 + 1e-12
        )

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
