"""Where the seconds of a run go: functions wrapped by name, each given only the time it spends itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

NAMES = (
    "generate", "reference", "reward", "value", "policy_forward", "value_forward", "log_probabilities", "backward",
    "optimizer",
)  # fmt: skip


class Parts:
    """Seconds a part, in rows that `mark` closes; what no part claims is `other`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._inner: list[float] = []  # seconds that parts within each open part took
        self._spent = dict.fromkeys(NAMES, 0.0)
        self._began = time.perf_counter()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its seconds counted under `name`, less those of parts called within."""
        assert name in self._spent, name

        def wrapped(*positional: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*positional, **named)
            finally:
                seconds = time.perf_counter() - started
                self._spent[name] += seconds - self._inner.pop()
                if self._inner:
                    self._inner[-1] += seconds

        return wrapped

    def mark(self) -> None:
        """Ends an iteration."""
        now = time.perf_counter()
        total, self._began = now - self._began, now
        self.rows.append({**self._spent, "other": total - sum(self._spent.values()), "total": total})
        self._spent = dict.fromkeys(NAMES, 0.0)
