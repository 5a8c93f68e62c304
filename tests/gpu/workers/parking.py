"""A frozen role that is parked in CPU memory between its uses: what it computes, and what the device holds meanwhile.

parking.py RESULT MODELS [--tiny]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import GPTNeoXForCausalLM

from rlhf.config.sections import DeepSpeedSection
from rlhf.data.packing import pack_sequences
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape
from rlhf.engine.deepspeed import InferenceModel
from rlhf.engine.ranks import Ranks, session
from rlhf.models.head import install_head
from rlhf.models.loading import ATTENTION, PackedCausalLM
from tests.support.stage_steps import Steps, sequences

WIDE = TinySize(hidden=2048, layers=4, heads=16, positions=2048)  # 325 M parameters with 30,080 words
MIB = 2**20


def held(ranks: Ranks) -> int:
    """Bytes that tensors hold on the device; 0 on a CPU."""
    if ranks.device.type != "cuda":
        return 0
    torch.cuda.synchronize(ranks.device)
    return torch.cuda.memory_allocated(ranks.device)


def compare(steps: Steps) -> dict[str, Any]:
    """Log-probabilities of a parked role in three uses, and of one that stays on the device."""
    ranks, row = steps.ranks, pack_sequences(sequences(20, 31))
    resident = InferenceModel(steps.language(), DeepSpeedSection(), ranks, dtype=steps.dtype)
    expected = resident.infer_logprobs(row, 1.0).logprobs.tolist()
    parked = InferenceModel(steps.language(), DeepSpeedSection(), ranks, dtype=steps.dtype, offload=True)
    found: dict[str, Any] = {"resident": expected, "uses": [], "held before": held(ranks)}
    for _ in range(3):
        found["uses"].append(parked.infer_logprobs(row, 1.0).logprobs.tolist())
        found["held in use"] = held(ranks)
        parked.park()
        found["held parked"] = held(ranks)
    found["bytes"] = sum(each.numel() * each.element_size() for each in resident._engine.parameters())
    return found


def speed(ranks: Ranks, *, tiny: bool) -> dict[str, float]:
    """Bytes a second on the way to the device, of a model as wide as 1.3 B parameters."""
    size = TinySize(hidden=32, layers=2, heads=4, positions=64) if tiny else WIDE
    model = GPTNeoXForCausalLM(polyglot_shape(size, 400 if tiny else 30080)).to(torch.bfloat16)
    model.set_attn_implementation(ATTENTION["sdpa"])
    install_head(model, "chunked")
    role = InferenceModel(PackedCausalLM(model), DeepSpeedSection(), ranks, dtype="bfloat16", offload=True)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        role._fetch()
        held(ranks)
        seconds.append(time.perf_counter() - started)
        role.park()
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    return {"fetch ms": 1000 * min(seconds), "fetch GB/s": weights / min(seconds) / 1e9, "weights MiB": weights / MIB}


def main(result: str, models: str, *flags: str) -> None:
    with session(3) as ranks:
        found = compare(Steps(Path(models), ranks, "bfloat16", "auto"))
        found["speed"] = speed(ranks, tiny=bool(flags))
        Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
