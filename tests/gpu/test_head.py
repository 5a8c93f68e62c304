"""The heads of a Korean vocabulary: in chunks, whole and by Liger's kernel; their values, time and memory."""

from __future__ import annotations

import time
from importlib.util import find_spec

import pytest
import torch

from rlhf.doctor.proofs_head import head_proof
from rlhf.models.head import HeadKind, LanguageModelHead, LossRequest
from tests.gpu.conftest import Record, Target

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(90)]

WORDS = 30080  # of Polyglot-ko


def require_kind(kind: HeadKind, target: Target) -> None:
    if kind == "liger" and not (target.on_gpu and find_spec("liger_kernel")):
        pytest.skip("Liger's kernel needs a GPU and the package liger-kernel")


@pytest.mark.parametrize("kind", ["chunked", "liger"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_loss_and_gradients_are_those_of_whole_logits(target: Target, dtype: torch.dtype, kind: HeadKind) -> None:
    """With unequal weights of tokens; `chunked` gives log-probabilities too."""
    require_kind(kind, target)
    tokens, width = (16, 16) if target.tiny else (128, 256)
    check = head_proof(target.device, dtype, kind, tokens=tokens, width=width, words=WORDS)
    assert check.state == "passed", check.detail


@pytest.mark.parametrize("kind", ["chunked", "whole", "liger"])
def test_time_and_memory(target: Target, kind: HeadKind, record_property: Record) -> None:
    """Of a row of 8,192 tokens at the width of 1.3 B parameters, forward and backward; the losses agree."""
    require_kind(kind, target)
    tokens, width = (32, 32) if target.tiny else (8192, 2048)
    torch.manual_seed(3)
    with target.device:
        head = LanguageModelHead(width, WORDS, bias=False, dtype=torch.bfloat16)
        hidden = torch.randn(tokens, width, dtype=torch.bfloat16, requires_grad=True)
        labels, weights = torch.randint(WORDS, (tokens,)), torch.ones(tokens)
    head.kind = kind
    request = LossRequest(labels, weights, weights.sum())
    for pass_name in ("first", "second"):
        if target.on_gpu:
            torch.cuda.reset_peak_memory_stats(target.device)
            before = torch.cuda.memory_allocated(target.device)
        target.wait()
        started = time.perf_counter()
        loss = (request.from_logits(head(hidden)) if kind == "whole" else head(hidden, request)).loss
        gradients = torch.autograd.grad(loss, (hidden, head.weight))
        target.wait()
        record_property(f"{pass_name} pass, ms", round(1000 * (time.perf_counter() - started), 2))
        if target.on_gpu:
            peak = torch.cuda.max_memory_allocated(target.device) - before
            record_property(f"{pass_name} pass, peak MiB", round(peak / 2**20))
    # PyTorch's default weights are uniform in +-1/sqrt(width), so logits have variance 1/3: mean loss ln V + 1/6.
    assert float(loss.detach()) == pytest.approx(torch.tensor(float(WORDS)).log().item() + 1 / 6, abs=0.2)
    assert all(bool(each.isfinite().all()) for each in gradients)
