"""Files of an engine as DeepSpeed leaves them, laid out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save_zero3(
    folder: Path, weights: Mapping[str, Tensor], *, ranks: int = 2, average: Mapping[str, Tensor] | None = None
) -> Path:
    """Weights as one flat tensor a rank: each parameter is cut into `ranks` parts, the last padded with NaN.

    exp_avg holds the weights plus 1, exp_avg_sq plus 2; Adam has taken 7 steps.
    """
    (folder / "engine").mkdir(parents=True)
    slots, start = [], 0
    for name, weight in weights.items():
        slots.append({"name": name, "shape": list(weight.shape), "start": start})
        start += -(-weight.numel() // ranks)
    flats = [{"size": start, "slots": slots}]
    write_layout(folder, zero_stage=3, world_size=ranks, flats=flats, averaged=[*(average or {})])
    for rank in range(ranks):
        flat = torch.cat([part_of(weight, rank, ranks) for weight in weights.values()])
        state = {0: {"step": torch.tensor(7.0), "exp_avg": flat + 1, "exp_avg_sq": flat + 2}}
        inner = {"fp32_flat_groups": [flat], "optimizer_state_dict": {"state": state}}
        name = f"zero_pp_rank_{rank}_mp_rank_00"
        torch.save({"optimizer_state_dict": inner}, folder / "engine" / f"{name}_optim_states.pt")
        counters = {"global_steps": 7, "global_samples": 14, "skipped_steps": 1}
        torch.save(counters, folder / "engine" / f"{name}_model_states.pt")
        if average is not None:
            parts = [part_of(value, rank, ranks) for value in average.values()]
            torch.save({"num_updates": 7, "average": parts}, folder / f"average-{rank:04d}.pt")
    return folder


def part_of(weight: Tensor, rank: int, ranks: int) -> Tensor:
    size = -(-weight.numel() // ranks)
    padded = torch.full((size * ranks,), torch.nan)
    padded[: weight.numel()] = weight.detach().flatten().float()
    return padded[rank * size : (rank + 1) * size].clone()


def write_layout(folder: Path, **fields: Any) -> None:
    value = {"dtype": "float32", "averaged": []} | fields
    (folder / "layout.json").write_text(json.dumps(value), encoding="utf-8")
