"""The machine's state beside a measurement: its load, and how long a fixed matrix product takes.

The product is the same everywhere and at all times: where it takes longer, the clock is lower or a neighbour is busy,
and the figures taken beside it are worth less.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import rlhf

assert rlhf  # sets OpenMP's waiting before torch is loaded

SIZE, PRODUCTS = 768, 24  # 21.7 billion operations: about a quarter of a second on two cores

State = dict[str, float]


def state() -> State:
    """The load average of the last minute, and the seconds of the fixed product."""
    return {"load": os.getloadavg()[0], "product_s": product_seconds()}


def product_seconds() -> float:
    import torch

    first, second, out = _operands()
    torch.mm(first, second, out=out)
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.mm(first, second, out=out)
    return time.perf_counter() - started


@cache
def _operands() -> Any:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    generator = torch.Generator().manual_seed(17)
    first, second = (torch.randn(SIZE, SIZE, generator=generator) for _ in range(2))
    return first, second, torch.empty(SIZE, SIZE)


def watched(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The figures of `measure`, and under `machine` the state before and after it."""
    before = state()
    figures = measure()
    return {**figures, "machine": {"before": before, "after": state()}}


def description() -> dict[str, Any]:
    """What kind of machine this is."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": names[0] if names else platform.processor(),
        "python": platform.python_version(),
    }


def states_in(content: Any) -> list[State]:
    """Every state that a result holds, however deep, in the order of its measurement within a round."""
    if isinstance(content, Mapping):
        own = content.get("machine")
        found = [own["before"], own["after"]] if isinstance(own, Mapping) and "before" in own else []
        return [*found, *_of_all(value for key, value in content.items() if key != "machine")]
    return _of_all(content) if isinstance(content, Sequence) and not isinstance(content, str) else []


def _of_all(values: Iterable[Any]) -> list[State]:
    return [each for value in values for each in states_in(value)]


def summary(states: Sequence[State]) -> dict[str, float]:
    """Mean and highest load; the fastest product, and by what share the slowest was slower: the clock's drift."""
    if not states:
        return {}
    loads, products = [each["load"] for each in states], [each["product_s"] for each in states]
    return {
        "load_mean": sum(loads) / len(loads),
        "load_max": max(loads),
        "product_s": min(products),
        "drift": max(products) / min(products) - 1,
    }
