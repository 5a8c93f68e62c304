"""Every step of the stages on this process's device: what failed, what it computed, how often the host had to wait.

steps.py RESULT MODELS KIND ...     a KIND is DTYPE:ATTENTION
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rlhf.engine.ranks import session
from tests.support.stage_steps import Steps


@contextmanager
def counted(device: torch.device) -> Iterator[Counter[str]]:
    """Lines at which the host waited for the device, by torch's own warnings; nothing is counted on a CPU."""
    found: Counter[str] = Counter()
    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for each in heard:
        if "synchroniz" in str(each.message):
            found[f"{'/'.join(Path(each.filename).parts[-3:])}:{each.lineno}"] += 1


def walked(steps: Steps) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = "nothing"
    try:
        for name, action in steps.all():
            started = time.perf_counter()
            with counted(steps.ranks.device) as waits:
                numbers = action()
            seconds = time.perf_counter() - started
            found[name] = {
                "numbers": numbers,
                "waits": sum(waits.values()),
                "where": waits.most_common(8),
                "s": seconds,
            }
    except Exception:  # noqa: BLE001  # the test shows it
        found["error"] = f"after {name}: {traceback.format_exc()}"
    return found


def main(result: str, models: str, *kinds: str) -> None:
    with session(3) as ranks:
        found = {
            kind: walked(Steps(Path(models), ranks, *kind.split(":"))) for kind in kinds if not kind.startswith("--")
        }
        Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
