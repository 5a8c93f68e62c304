"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal

ScheduleKind = Literal["cosine", "linear", "constant"]


def learning_rate_factor(step: int, *, total: int, warmup: int, kind: ScheduleKind, floor: float) -> float:
    """Share of the peak learning rate at an optimizer step: linear warm-up, then a decay from 1 to `floor`.

    Warm-up is step / warmup, so its last step is at the peak. With s the share of the decay that is done, 0 at the
    first step after the warm-up and 1 at step `total`, the factor is floor + (1 - floor) * d, where d = 1 - s (linear)
    or d = (1 + cos(pi * s)) / 2 (cosine). Beyond `total` it stays at `floor`. A constant schedule stays at 1.

    Units:   step, total and warmup in optimizer steps, step counted from 1; floor and the result are shares in [0, 1].
    Raises:  ValueError if step is below 1, floor leaves [0, 1], or the kind is unknown.
    Source:  arXiv:1608.03983 eq. 5 without restarts (cosine).
    """
    if step < 1 or not 0 <= floor <= 1:
        raise ValueError(f"step = {step}, floor = {floor}: expected step >= 1 and 0 <= floor <= 1")
    if step <= warmup:
        return step / warmup
    done = min(1.0, (step - warmup - 1) / max(1, total - warmup - 1))
    match kind:
        case "constant":
            return 1.0
        case "linear":
            decay = 1 - done
        case "cosine":
            decay = (1 + math.cos(math.pi * done)) / 2
        case _:
            raise ValueError(f"kind = {kind!r}, expected 'cosine', 'linear' or 'constant'")
    return floor + (1 - floor) * decay
