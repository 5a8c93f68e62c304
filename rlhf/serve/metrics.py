"""The Prometheus metrics of `/metrics`. Each application has a registry, so that two can run in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The metrics of one service. The models' threads call `first_token` and `step`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.running = Gauge("rlhf_answers_running", "Answers being generated", registry=registry)
        self.waiting = Gauge("rlhf_answers_waiting", "Answers in the queue", registry=registry)
        self.prompt_tokens = Counter("rlhf_prompt_tokens", "Tokens of accepted prompts", registry=registry)
        self._drawn = Counter("rlhf_generated_tokens", "Tokens sampled", registry=registry)
        self._steps = Counter("rlhf_decode_steps", "Forward passes that sampled tokens", registry=registry)
        self._first = Histogram(
            "rlhf_first_token_seconds", "From request to first token", buckets=SECONDS, registry=registry
        )
        self._requests = Counter("rlhf_requests", "Requests answered", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "rlhf_request_seconds", "From request to last byte", ["path"], buckets=SECONDS, registry=registry
        )

    def first_token(self, seconds: float) -> None:
        """Counts an answer's first token, `seconds` after its request."""
        self._first.observe(seconds)

    def step(self, tokens: int) -> None:
        """Counts a forward pass that sampled `tokens`."""
        self._drawn.inc(tokens)
        self._steps.inc()

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts an answered request; `path` is a route's pattern."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
