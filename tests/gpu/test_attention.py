"""The variable-length kernel against SDPA, and SDPA with cuDNN and without on rows of ever new lengths."""

from __future__ import annotations

import time

import pytest
import torch

import rlhf.models.attention as packed
from rlhf.doctor.proofs_attention import HeadShape, attention_proof
from rlhf.models.attention_choice import KernelSupport, allow_cudnn, varlen_obstacle
from rlhf.ops.segments import Segments
from tests.gpu.conftest import Record, Target
from tests.support.varlen_kernel import varlen_by_definition

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(90)]

NUM_LENGTHS = 50


@pytest.fixture(autouse=True)
def _kernel(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off the GPU, where the kernel does not run, its definition stands in: what is tried there is this file."""
    if not target.on_gpu:
        import torch.nn.attention.varlen as kernels

        monkeypatch.setattr(kernels, "varlen_attn", varlen_by_definition)


@pytest.mark.parametrize("key_heads", [8, 2], ids=["multi-head", "grouped"])
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_varlen_equals_sdpa_forward_and_backward(target: Target, dtype: torch.dtype, size: int, key_heads: int) -> None:
    """On a row of plain sequences and on one of trees; the expected values are SDPA's in float32."""
    if target.on_gpu:
        assert varlen_obstacle(size, dtype, KernelSupport.on(target.device)) == ""
    longest = 24 if target.tiny else 700
    check = attention_proof(target.device, dtype, HeadShape(8, key_heads, size), longest=longest)
    assert check.state == "passed", check.detail


@pytest.mark.parametrize("cudnn", [False, True], ids=["without cuDNN", "with cuDNN"])
def test_sdpa_on_fifty_distinct_lengths(target: Target, cudnn: bool, record_property: Record) -> None:
    """Time is recorded: cuDNN builds a plan for every new length. The outputs must not depend on the switch."""
    heads, size = (2, 16) if target.tiny else (16, 128)
    lengths = [(8 if target.tiny else 512) + number for number in range(NUM_LENGTHS)]
    rows = [_drawn(target, heads, size, length) for length in lengths]
    was = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        allow_cudnn(cudnn)
        for kind, attend in (("forward", _forward), ("forward and backward", _both), ("one query", _one_query)):
            for round_name in ("first", "second"):
                started = _now(target)
                outputs = [attend(*row) for row in rows]
                record_property(f"{kind}, {round_name} pass, ms a length", _milliseconds(target, started))
            assert all(bool(output.isfinite().all()) for output in outputs)
        allow_cudnn(False)
        for found, row in zip([_forward(*rows[0]), _forward(*rows[-1])], (rows[0], rows[-1]), strict=True):
            expected = _forward(*(each.float() for each in row))
            torch.testing.assert_close(found.float(), expected, rtol=3e-2, atol=3e-2)  # bfloat16 keeps 8 bits
    finally:
        allow_cudnn(was)


def _drawn(target: Target, heads: int, size: int, length: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(target.device).manual_seed(length)
    options = {"device": target.device, "dtype": torch.bfloat16, "generator": generator}
    return tuple(torch.randn(1, heads, length, size, **options).requires_grad_() for _ in range(3))


def _forward(*row: torch.Tensor) -> torch.Tensor:
    segments = Segments.of_lengths([row[0].shape[2]])
    with torch.no_grad():
        return packed.packed_sdpa(torch.nn.Module(), *row, None, segments=segments)[0]


def _both(*row: torch.Tensor) -> torch.Tensor:
    output, _ = packed.packed_sdpa(torch.nn.Module(), *row, None, segments=Segments.of_lengths([row[0].shape[2]]))
    return torch.autograd.grad(output.float().sum(), row)[0]


def _one_query(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """As in a decode step."""
    with torch.no_grad():
        return torch.nn.functional.scaled_dot_product_attention(query[:, :, -1:], key, value)


def _now(target: Target) -> float:
    target.wait()
    return time.perf_counter()


def _milliseconds(target: Target, started: float) -> float:
    return round(1000 * (_now(target) - started) / NUM_LENGTHS, 3)
