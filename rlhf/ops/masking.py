"""Sums, means and whitening over the entries that a boolean mask counts, and the checks of arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def check_mask(mask: Tensor, **tensors: Tensor) -> None:
    """Refuse a mask that is not boolean and tensors that would broadcast against it instead of matching it.

    Shapes:  mask [...] bool; every keyword tensor [...], its keyword is its name in the error.
    Raises:  ValueError.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"mask has dtype {mask.dtype}, expected torch.bool (True = counts); use mask.bool()")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected the mask's {list(mask.shape)}")


def check_scalar(**tensors: Tensor) -> None:
    """Refuse a global count or moment that is not a scalar [] and would make the result a non-scalar.

    Raises:  ValueError, naming the keyword.
    """
    for name, tensor in tensors.items():
        if tensor.ndim != 0:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected a scalar []; use .sum()")


def require(holds: Tensor, message: str) -> None:
    """Refuse values for which `holds` [] bool is False.

    On a GPU the check is queued with the other kernels, so that the host does not wait for the device: there a failure
    is a device-side assertion, which ends the process and prints the message.

    Raises:  ValueError with the message, on a CPU.
    """
    if holds.device.type != "cpu":
        torch._assert_async(holds, message)
    elif not holds:
        raise ValueError(message)


def widen(values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, any other dtype unchanged: in bfloat16, 256 + 1 is 256.

    Shapes:  values [...] -> [...].
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the counted entries, in float32 when `values` are half precision.

    Shapes:  values [...]; mask [...] bool.
    Returns: [] in the unit of `values`, or [...] without `dim` when one is given; an empty mask gives 0.
    Raises:  ValueError if the mask is not boolean or not of the shape of `values`.
    """
    check_mask(mask, values=values)
    kept = widen(torch.where(mask, values, 0))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the counted entries of this batch alone; for a loss use masked_sum and the global count.

    Shapes:  values [...]; mask [...] bool.
    Returns: [] in the unit of `values`.
    Raises:  ValueError if nothing is counted, or as masked_sum.
    """
    total, count = masked_sum(values, mask), mask.sum()
    if count == 0:
        raise ValueError(f"mask of shape {list(mask.shape)} counts no entry: no mean; skip the batch")
    return total / count


def whiten(values: Tensor, mask: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Scale the counted entries to mean 0 and variance 1.

    The moments are those of this mask alone: give it the values of all ranks at once.

    Shapes:  values [...]; mask [...] bool.
    Returns: [...] standard deviations; 0 outside the mask.
    Raises:  ValueError as masked_mean, or if epsilon is not positive; it is added to the variance.
    Source:  arXiv:1909.08593, `whiten` in github.com/openai/lm-human-preferences.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon = {epsilon}, expected > 0: equal values have variance 0")
    centred = torch.where(mask, widen(values) - masked_mean(values, mask), 0)
    variance = centred.square().sum() / mask.sum()
    return centred * torch.rsqrt(variance + epsilon)
