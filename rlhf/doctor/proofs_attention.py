"""Proof of the variable-length attention kernel against SDPA, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import compared
from rlhf.models.attention import packed_sdpa, packed_varlen
from rlhf.ops.segments import Segment, Segments

FIX = "set model.attention=sdpa"


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Attention heads: queries, keys and values, and entries of one head."""

    heads: int
    key_heads: int
    size: int


def attention_proof(device: torch.device, dtype: torch.dtype, shape: HeadShape, *, longest: int = 24) -> Check:
    """Compares both kernels on a row of plain sequences and on one of shared-prefix trees.

    Inputs are rounded to `dtype`; the expected values are SDPA's on the same numbers in float32. `longest` is the most
    tokens of a sequence.
    """
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for row, segments in (("plain", _plain(longest)), ("trees", _trees(longest))):
        found = _outputs(packed_varlen, segments, shape, device, dtype, dtype)
        expected = _outputs(packed_sdpa, segments, shape, device, dtype, torch.float32)
        what = (f"{row} forward", f"{row} dq", f"{row} dk", f"{row} dv")
        pairs |= dict(zip(what, zip(found, expected, strict=True), strict=True))
    return compared(f"varlen attention, {shape.heads}/{shape.key_heads} heads of {shape.size}", pairs, dtype, fix=FIX)


def _plain(longest: int) -> Segments:
    return Segments.of_lengths([longest // 2 + 1, 1, longest])


def _trees(longest: int) -> Segments:
    """A plain sequence, then a prompt with three answers, of one token and more."""
    half = longest // 2
    prompt = Segment(half, 2 * half)
    spans, start = [Segment(0, half), prompt], prompt.end
    for length in (1, longest - half, max(2, half // 2)):
        spans.append(Segment(start, start + length, prompt.start, prompt.end))
        start += length
    return Segments(tuple(spans))


def _outputs(
    attend: object, segments: Segments, shape: HeadShape, device: torch.device, rounded: torch.dtype, dtype: torch.dtype
) -> list[Tensor]:
    """Output and gradients of query, key and value, computed in `dtype` from random numbers of precision `rounded`."""
    tokens = segments.spans[-1].end
    generator = torch.Generator().manual_seed(11)
    sizes = (shape.heads, shape.key_heads, shape.key_heads)
    drawn = [torch.randn(1, heads, tokens, shape.size, generator=generator) for heads in sizes]
    inputs = [each.to(device, rounded).to(dtype).requires_grad_() for each in drawn]
    direction = torch.randn(1, tokens, shape.heads, shape.size, generator=generator).to(device, rounded).to(dtype)
    with torch.enable_grad():
        output, _ = attend(nn.Module(), *inputs, None, segments=segments, scaling=shape.size**-0.5)  # type: ignore[operator]
        gradients = torch.autograd.grad(output, inputs, direction)
    return [output.detach(), *gradients]
