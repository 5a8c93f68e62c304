"""Two computations of the same numbers, compared within the tolerance of their dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rlhf.doctor.checks import Check

# Largest difference allowed, as a share of the largest expected value.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def compared(
    name: str,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    dtype: torch.dtype,
    *,
    fix: str,
    tolerance: float | None = None,
) -> Check:
    """A check that each (found, expected) pair agrees; `pairs` is keyed by what is compared.

    The difference of a pair is its largest absolute difference over its largest expected value, so that one tolerance
    fits outputs and gradients. NaN disagrees. `tolerance` defaults to that of `dtype`.
    """
    limit = TOLERANCE[dtype] if tolerance is None else tolerance
    worst, place = max((_difference(*pair), what) for what, pair in pairs.items())
    device = next(iter(pairs.values()))[0].device
    said = f"{', '.join(pairs)}: differ by at most {worst:.1e} of the largest value ({place}), tolerance {limit:.0e}"
    state = "passed" if worst <= limit else "failed"
    return Check(name, state, f"{said}; {device}, {dtype_name(dtype)}", "" if state == "passed" else fix)  # type: ignore[arg-type]


def attempted(name: str, prove: Callable[[], Check], *, fix: str) -> Check:
    """The check that `prove` returns, or a failed one with its error: a kernel that cannot run is a finding."""
    try:
        return prove()
    except Exception as error:  # noqa: BLE001  # any error of a kernel or its build
        text = str(error).strip().splitlines()
        return Check(name, "failed", f"{type(error).__name__}: {text[0] if text else 'no message'}", fix)


def dtype_name(dtype: torch.dtype) -> str:
    """bfloat16 for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def _difference(found: Tensor, expected: Tensor) -> float:
    scale = max(float(expected.float().abs().max()), torch.finfo(torch.float32).tiny)
    share = float((found.float() - expected.float()).abs().max()) / scale
    return float("inf") if math.isnan(share) else share
