"""A saved engine by parameter name: whole weights, moments, steps and averages, whatever ranks wrote them.

Only the requested parts are read from disk. Nothing here needs other ranks or a GPU.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlhf.engine.ema import average_file
from rlhf.engine.layout import FlatTensor, Layout, Slot
from rlhf.errors import CheckpointError

ENGINE_TAG = "engine"
LAYOUT_FILE = "layout.json"
COUNTERS = ("global_steps", "global_samples", "skipped_steps")
LOSS_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter")
Kind = Literal["weight", "exp_avg", "exp_avg_sq"]


def read_layout(folder: Path) -> Layout:
    """The layout of the engine saved in `folder`.

    Raises: CheckpointError when there is none.
    """
    file = folder / LAYOUT_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing",
            expected="the folder of a role in a checkpoint, with the layout of its tensors",
            fix="resume with the roles it was saved by (ppo.roles, ppo.estimator), or from another checkpoint",
        )
    return Layout.from_json(json.loads(file.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Shard:
    """What one rank saved: its flat float32 weights, Adam's state of each, and the loss scale (empty without one)."""

    weights: list[Tensor]
    states: dict[int, dict[str, Any]]
    loss_scale: dict[str, Any]


class WholeState:
    """The state of the engine that was saved in `folder`.

    Raises: CheckpointError for files that are missing or cannot be read, also later, when they are needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.layout = read_layout(folder)
        self._places: dict[str, tuple[int, FlatTensor, Slot]] = {
            slot.name: (number, flat, slot) for number, flat in enumerate(self.layout.flats) for slot in flat.slots
        }

    def parameter(self, name: str, kind: Kind = "weight") -> Tensor:
        """The whole weight or moment of a parameter, float32, in its shape."""
        slot = self._places[name][2]
        return self.part(name, kind, 0, slot.size).view(slot.shape)

    def part(self, name: str, kind: Kind, begin: int, count: int) -> Tensor:
        """`count` of its elements from `begin` on, float32 [count]; moments of one that was never updated are 0."""
        number, flat, slot = self._places[name]
        part = torch.zeros(count)
        for rank, shard in enumerate(self._shards):
            piece = self.layout.piece(flat, slot, rank)
            low, high = max(begin, piece.begin), min(begin + count, piece.begin + piece.count)
            held = shard.weights[number] if kind == "weight" else shard.states.get(number, {}).get(kind)
            if low < high and held is not None:
                place = piece.place + low - piece.begin
                part[low - begin : high - begin] = held.detach().reshape(-1)[place : place + high - low].float()
        return part

    def step(self, name: str) -> int:
        number = self._places[name][0]
        return int(self._shards[0].states.get(number, {}).get("step", 0))

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        """Copies the saved averages, or weights where there are none, into a module of one process.

        Raises: CheckpointError when the module trains other parameters.
        """
        live = {name: each for name, each in module.named_parameters() if each.requires_grad}
        shapes = {name: tuple(each.shape) for name, each in live.items()}
        require_same_parameters(self._folder, self.layout.shapes(), shapes)
        averaged = set(self.layout.averaged) if self.has_average else set()
        for name, parameter in live.items():
            parameter.copy_(self.average(name) if name in averaged else self.parameter(name))

    @property
    def loss_scale(self) -> dict[str, Any]:
        return self._shards[0].loss_scale

    @cached_property
    def counters(self) -> dict[str, int]:
        (saved,) = self._loaded(
            "zero_pp_rank_0_mp_rank_00_model" if self.layout.zero_stage == 3 else "mp_rank_00_model"
        )
        return {name: int(saved[name]) for name in COUNTERS}

    @property
    def has_average(self) -> bool:
        return average_file(self._folder, 0).is_file()

    @cached_property
    def _averages(self) -> list[dict[str, Any]]:
        ranks = range(self.layout.world_size if self.layout.zero_stage == 3 else 1)
        return [self._read(average_file(self._folder, rank)) for rank in ranks]

    @property
    def num_average_updates(self) -> int:
        return int(self._averages[0]["num_updates"])

    def average(self, name: str) -> Tensor:
        """The whole average of a parameter's values, float32."""
        place, slot = self.layout.averaged.index(name), self._places[name][2]
        parts = [each["average"][place].reshape(-1) for each in self._averages]
        return torch.cat(parts)[: slot.size].view(slot.shape)

    @cached_property
    def _shards(self) -> list[Shard]:
        if self.layout.zero_stage == 0:
            (saved,) = self._loaded("mp_rank_00_model")
            return [_replicated(saved, self.layout)]
        names = [f"zero_pp_rank_{rank}_mp_rank_00_optim" for rank in range(self.layout.num_shards)]
        return [_partition(each["optimizer_state_dict"]) for each in self._loaded(*names)]

    def _loaded(self, *names: str) -> list[dict[str, Any]]:
        folder = self._folder / ENGINE_TAG
        prefix = "bf16_" if self.layout.dtype == "bfloat16" else ""
        return [self._read(folder / f"{prefix if 'optim' in name else ''}{name}_states.pt") for name in names]

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            return torch.load(file, map_location="cpu", mmap=True, weights_only=False)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            fix = "resume from another checkpoint; a checkpoint is one whole folder, with the files of every rank"
            raise CheckpointError(f"cannot read {file}: {error}", fix=fix) from error


def require_same_parameters(
    folder: Path, saved: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises CheckpointError, naming what differs, unless both hold the same shapes by the same names."""
    other = sorted(name for name in saved.keys() | here.keys() if saved.get(name) != here.get(name))
    if other:
        lines = [f"{name}: saved {saved.get(name, 'absent')}, here {here.get(name, 'absent')}" for name in other[:3]]
        raise CheckpointError(
            f"{folder} has other trained parameters ({len(other)} differ): {'; '.join(lines)}",
            expected="the model and adapter settings of the run that saved the checkpoint",
            fix="use the run's own config.yaml (model.path, model.lora), or start a new run",
        )


def _replicated(saved: dict[str, Any], layout: Layout) -> Shard:
    """ZeRO 0: in float32 the module itself; in half precision a list of float32 copies."""
    optimizer = saved["optimizer"]
    if "fp32_groups" not in optimizer:
        weights = [saved["module"][flat.slots[0].name] for flat in layout.flats]
        return Shard(weights, optimizer["state"], {})
    weights = [weight for group in optimizer["fp32_groups"] for weight in group]
    scale = {name: optimizer[name] for name in LOSS_SCALE if name in optimizer}
    return Shard(weights, optimizer["optimizer_state_dict"]["state"], scale)


def _partition(saved: dict[str, Any]) -> Shard:
    """ZeRO 1 to 3: one rank's part."""
    scaler = saved.get("loss_scaler")
    scale = {name: getattr(scaler, name) for name in LOSS_SCALE if hasattr(scaler, name)}
    if "fp32_flat_groups" in saved:
        return Shard(saved["fp32_flat_groups"], saved["optimizer_state_dict"]["state"], scale)
    return Shard(saved["single_partition_of_fp32_groups"], saved["base_optimizer_state"]["state"], scale)
