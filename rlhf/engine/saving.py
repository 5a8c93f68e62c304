"""Saves an engine into a checkpoint and loads it: as saved on the same ranks, converted on others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlhf.engine.ema import WeightAverage, average_file
from rlhf.engine.layout import FlatTensor, Layout, Slot
from rlhf.engine.ranks import Ranks
from rlhf.engine.whole_state import ENGINE_TAG, LAYOUT_FILE, Kind, WholeState, read_layout, require_same_parameters
from rlhf.errors import CheckpointError

LiveFlat = tuple[Tensor, Sequence[nn.Parameter], Sequence[int]]  # float32 weights, their parameters, where each starts


class Parked(Protocol):
    """An offloaded model, which leaves the device when `park` is called."""

    def park(self) -> None: ...


class StoredEngine:
    """An engine that learns: its training mode, the average of its weights, and what a checkpoint holds of it.

    Args:
        engine: a DeepSpeed engine.
        dtype: type of its weights.
        optimizer: its name in the configuration.
        average: the running average kept beside it, if any.
        parked: offloaded models that leave the device while it trains.
    """

    def __init__(
        self,
        engine: Any,
        ranks: Ranks,
        *,
        dtype: str,
        optimizer: str,
        average: WeightAverage | None,
        parked: Sequence[Parked],
    ) -> None:
        self._engine, self.ranks, self.dtype, self._average, self._parked = engine, ranks, dtype, average, parked
        self._optimizer = optimizer
        self._has_frozen = any(not parameter.requires_grad for parameter in engine.module.parameters())

    def train(self) -> None:
        """Training mode; offloaded models leave the device."""
        for model in self._parked:
            model.park()
        self._engine.train()

    def averaged(self) -> AbstractContextManager[None]:
        """Puts the average of the weights in their place, if one is kept; the trained ones return bit for bit."""
        return nullcontext() if self._average is None else self._average.swapped()

    def save(self, folder: Path) -> None:
        """Saves trained weights, their average and optimizer state of all ranks into an existing folder."""
        if self.ranks.is_main:
            (folder / LAYOUT_FILE).write_text(json.dumps(self.layout().to_json()), encoding="utf-8")
        if self._average is not None:
            self._average.save(average_file(folder, self.ranks.rank))
        # Last, because it ends in a barrier: after it every file of every rank is there.
        self._engine.save_checkpoint(
            str(folder), tag=ENGINE_TAG, save_latest=False, exclude_frozen_parameters=self._has_frozen
        )

    def load(self, folder: Path) -> str:
        """Loads what `save` wrote: bit for bit if ranks, ZeRO stage and groups are the same, else converted.

        Returns: what was converted; empty if nothing was.
        Raises: CheckpointError when it cannot be read, or is of other parameters.
        """
        saved, here = read_layout(folder), self.layout()
        require_same_parameters(folder, saved.shapes(), here.shapes())
        if (saved.zero_stage, saved.world_size, saved.dtype, saved.flats) == (
            here.zero_stage,
            here.world_size,
            here.dtype,
            here.flats,
        ):
            self._load_as_saved(folder)
            return ""
        if self._optimizer != "adamw":
            raise CheckpointError(
                f"{folder} is of {saved}, and this is {here}: the state of {self._optimizer} cannot be converted",
                where="train.optimizer",
                expected="the ranks, the ZeRO stage, the type and the parameter groups of the run that saved it",
                fix="resume as it was saved, or start a new run from its exported model",
            )
        self._convert(WholeState(folder), here)
        return f"from {saved} to {here}" if str(saved) != str(here) else f"to other parameter groups, {here}"

    def layout(self) -> Layout:
        names = {parameter: name for name, parameter in self._engine.module.named_parameters()}
        flats = [
            FlatTensor(
                master.numel(),
                tuple(
                    Slot(names[each], tuple(getattr(each, "ds_shape", each.shape)), start)
                    for each, start in zip(parameters, starts, strict=True)
                ),
            )
            for master, parameters, starts in self._live()
        ]
        averaged = () if self._average is None else tuple(names[each] for each in self._average.parameters)
        stage = self._engine.zero_optimization_stage()
        return Layout(stage, self.ranks.world_size, self.dtype, tuple(flats), averaged)

    def _live(self) -> list[LiveFlat]:
        """The optimizer's flat tensors, as each of DeepSpeed's wrappers keeps them."""
        optimizer, stage = self._engine.optimizer, self._engine.zero_optimization_stage()
        if stage == 3:
            starts = [_running(each.partition_numel() for each in group) for group in optimizer.fp16_groups]
            return list(zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, starts, strict=True))
        if hasattr(optimizer, "round_robin_bit16_groups"):
            groups, starts = optimizer.round_robin_bit16_groups, optimizer.round_robin_bit16_offsets
            return list(zip(optimizer.single_partition_of_fp32_groups, groups, starts, strict=True))
        if hasattr(optimizer, "bf16_groups"):
            starts = [_running(each.numel() for each in group) for group in optimizer.bf16_groups]
            return list(zip(optimizer.fp32_groups_flat_partition, optimizer.bf16_groups, starts, strict=True))
        if hasattr(optimizer, "fp32_groups"):
            pairs = zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True)
            return [(master, [own], [0]) for groups in pairs for master, own in zip(*groups, strict=True)]
        return [(each, [each], [0]) for group in optimizer.param_groups for each in group["params"]]

    def _load_as_saved(self, folder: Path) -> None:
        try:
            strict = not self._has_frozen
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=ENGINE_TAG, load_module_strict=strict)
        except (OSError, RuntimeError, KeyError, ValueError, AssertionError) as error:
            fix = "resume from another checkpoint"
            raise CheckpointError(f"cannot load {folder}: {error}", fix=fix) from error
        if loaded is None:
            raise CheckpointError(f"{folder} holds no engine state", fix="delete it and resume from the one before")
        if self._average is not None:
            self._average.load(average_file(folder, self.ranks.rank))

    @torch.no_grad()
    def _convert(self, state: WholeState, here: Layout) -> None:
        """Every rank reads its own part of each parameter; nothing is sent."""
        engine, optimizer = self._engine, self._engine.optimizer
        if here.zero_stage == 3:
            optimizer.empty_partition_cache()  # whole copies of partitioned weights would go stale
        for flat, (master, parameters, _) in zip(here.flats, self._live(), strict=True):
            self._fill(state, here, flat, master, parameters)
        for name, value in state.counters.items():
            setattr(engine, name, value)
        scale = getattr(optimizer, "loss_scale_config", None) or getattr(optimizer, "loss_scaler", None)
        for name, value in state.loss_scale.items():
            if self.dtype == state.layout.dtype == "float16" and hasattr(scale, name):
                setattr(scale, name, value)
        if self._average is not None:
            if not state.has_average:
                raise CheckpointError(
                    "the checkpoint holds no average of weights", fix="resume with the train.ema_decay it was saved by"
                )
            names = {parameter: name for name, parameter in engine.module.named_parameters()}
            self._average.fill(lambda each: state.average(names[each]), state.num_average_updates, rank=self.ranks.rank)

    def _fill(
        self, state: WholeState, here: Layout, flat: FlatTensor, master: Tensor, parameters: Sequence[nn.Parameter]
    ) -> None:
        """This rank's part of one flat tensor: weights in both precisions, moments and step."""
        kinds: tuple[Kind, ...] = ("exp_avg", "exp_avg_sq")
        moments: dict[Kind, Tensor] = {kind: torch.zeros_like(master, requires_grad=False) for kind in kinds}
        for slot, parameter in zip(flat.slots, parameters, strict=True):
            piece = here.piece(flat, slot, self.ranks.rank)
            ours = slice(piece.place, piece.place + piece.count)
            weight = state.part(slot.name, "weight", piece.begin, piece.count)
            master.view(-1)[ours].copy_(weight)
            if here.zero_stage == 3:
                parameter.ds_tensor.view(-1)[: piece.count].copy_(weight)  # type: ignore[attr-defined]
            else:
                parameter.copy_(state.parameter(slot.name))
            for kind, moment in moments.items():
                moment.view(-1)[ours].copy_(state.part(slot.name, kind, piece.begin, piece.count))
        step, inner = max(state.step(slot.name) for slot in flat.slots), self._engine.basic_optimizer
        inner.state.pop(master, None)
        if step:
            fused = isinstance(inner, torch.optim.AdamW)
            count = torch.tensor(float(step), device=master.device) if fused else step
            inner.state[master] = {"step": count} | dict(moments.items())


def _running(sizes: Any) -> list[int]:
    """Where each of consecutive parts starts."""
    return [0, *accumulate(sizes)][:-1]
