"""Decode steps captured in CUDA graphs against the eager loop: the same answers, and the time of a step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.models.loading import load_causal_lm
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.capacity import CacheBuckets
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.graphs import Graphs
from rlhf.rollout.sequences import ActiveSequence, Decoding
from tests.gpu.conftest import Record, Target

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

NUM_ANSWERS, NUM_SLOTS = 40, 16


def decoded(model: Any, target: Target, decoding: Decoding, graphs: Graphs) -> tuple[list[ActiveSequence], float]:
    rng = np.random.default_rng(4)
    tokens = 16 if target.tiny else 200
    answers = [
        ActiveSequence(
            rng.integers(2, 400, 3 + row % 20).astype(np.int32), uniform_draws((2, row), tokens - row % 9), decoding
        )
        for row in range(NUM_ANSWERS)
    ]
    decoder = Decoder(model, -1, num_slots=NUM_SLOTS, graphs=graphs, buckets=CacheBuckets(fixed=True))
    decoder.admit(answers)
    target.wait()
    started, steps = time.perf_counter(), 0
    while decoder.busy:
        decoder.step()
        steps += 1
    target.wait()
    return answers, (time.perf_counter() - started) / steps


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "decoding", [Decoding(), Decoding(0.0), Decoding(0.8, 20, 0.9)], ids=["plain", "greedy", "cut"]
)
def test_captured_steps_give_the_answers_of_eager_ones(
    target: Target, models: Path, dtype: str, decoding: Decoding, record_property: Record
) -> None:
    """The kernels are the same, so the tokens are; on a GPU `on` makes a failed capture an error."""
    model = load_causal_lm(str(models / "llama"), dtype=dtype, device=target.device).to(target.device).eval().model
    eager, eager_s = decoded(model, target, decoding, "off")
    captured, captured_s = decoded(model, target, decoding, "on" if target.on_gpu else "auto")
    assert [each.tokens for each in captured] == [each.tokens for each in eager]
    for one, other in zip(captured, eager, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    record_property("eager ms per step", round(1000 * eager_s, 3))
    record_property("captured ms per step", round(1000 * captured_s, 3))


def test_memory_of_graphs_is_free_when_a_rollout_ends(target: Target, models: Path, record_property: Record) -> None:
    if not target.on_gpu:
        pytest.skip("torch counts no allocations of a CPU")
    model = load_causal_lm(str(models / "llama"), dtype="bfloat16", device=target.device).to(target.device).eval().model
    decoded(model, target, Decoding(), "on")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(target.device)
    for _ in range(3):
        decoded(model, target, Decoding(), "on")
    torch.cuda.empty_cache()
    record_property("bytes kept", torch.cuda.memory_reserved(target.device) - before)
    assert torch.cuda.memory_reserved(target.device) <= before
