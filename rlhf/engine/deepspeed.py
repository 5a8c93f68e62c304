"""Trained and frozen models under DeepSpeed: wrapped, stepped, gathered and saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.config.sections import DeepSpeedSection, OptimizerFields
from rlhf.data.packing import PackedRow
from rlhf.engine.ema import WeightAverage
from rlhf.engine.gradients import SkippedGroups, update_without_leftovers
from rlhf.engine.groups import parameter_groups
from rlhf.engine.parking import ParkingModel
from rlhf.engine.partitioned import unwrapped_zero3
from rlhf.engine.ranks import Ranks
from rlhf.engine.rows import RowModel
from rlhf.engine.saving import StoredEngine
from rlhf.engine.wrapping import adamw, not_finite, wrapped_engine
from rlhf.engine.zero_config import zero_config
from rlhf.errors import ModelError
from rlhf.models.loading import PackedModel


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """grad_norm: 2-norm of the whole gradient before clipping; applied: False after a float16 overflow, without a
    gradient, or if the gradient was dropped."""

    grad_norm: float
    applied: bool


class InferenceModel(RowModel):
    """A frozen model, for the methods that infer: a plain module below ZeRO 3, partitioned at ZeRO 3.

    offload: its weights stay in CPU memory until they are used, and return there when `park` is called; at ZeRO 3
    DeepSpeed keeps the partitions there.
    """

    def __init__(
        self, model: PackedModel, section: DeepSpeedSection, ranks: Ranks, *, dtype: str, offload: bool = False
    ) -> None:
        self._partitioned = section.zero_stage == 3
        self._parking: ParkingModel | None = None
        model.requires_grad_(False)
        if self._partitioned:
            import deepspeed

            section = section.model_copy(update={"offload_parameters": offload or section.offload_parameters})
            config = zero_config(section, dtype=dtype, max_grad_norm=1.0, on_gpu=ranks.device.type != "cpu")
            config["zero_optimization"].pop("offload_optimizer", None)
            engine, *_ = deepspeed.initialize(model=model, config=config)
        elif offload:
            engine, self._parking = model, ParkingModel(model, ranks.device)
        else:
            engine = model.to(ranks.device)
        super().__init__(engine, ranks)
        self._engine.eval()

    def _call(self, row: PackedRow, **options: Any) -> Any:
        self._fetch()
        return super()._call(row, **options)

    def _fetch(self) -> None:
        if self._parking is not None:
            self._parking.fetch()

    @contextmanager
    def full_weights(self) -> Iterator[nn.Module]:
        """The Hugging Face model with whole weights, for generation: gathered once, not per token."""
        self._fetch()
        with unwrapped_zero3(self._engine) if self._partitioned else nullcontext():
            yield (self._engine.module if self._partitioned else self._engine).model

    @contextmanager
    def held_weights(self) -> Iterator[nn.Module]:
        """The Hugging Face model as this rank holds it: partitioned at ZeRO 3."""
        self._fetch()
        yield (self._engine.module if self._partitioned else self._engine).model

    def park(self) -> None:
        """Frees the device of an offloaded model's weights until they are used again."""
        if self._parking is not None:
            self._parking.park()


class TrainedModel(RowModel, StoredEngine):
    """A model that is trained. Losses given to `backward` are already divided by their global count.

    `ema_decay` keeps a running average of the weights, which `averaged` puts in their place. `parked` are offloaded
    models that leave the device while this one trains.
    """

    def __init__(
        self,
        model: PackedModel,
        optimizer: OptimizerFields,
        section: DeepSpeedSection,
        ranks: Ranks,
        *,
        dtype: str,
        ema_decay: float | None = None,
        parked: Sequence[InferenceModel] = (),
    ) -> None:
        self._section, self._max_grad_norm = section, optimizer.max_grad_norm
        groups = parameter_groups(model.named_parameters(), optimizer.weight_decay, optimizer.lr_groups)
        if not groups:
            raise ModelError("no parameter of the model is trained", fix="check model.lora.targets")
        self._lr_scales = [group["lr_scale"] for group in groups]
        inner = adamw(groups, optimizer, offload=section.offload_optimizer)
        self._grad_norm = math.nan
        self._has_gradient, self._discards = False, False
        self._engine: Any = None
        self._skipped = SkippedGroups(keeps_buffers=section.offload_optimizer)
        inner.register_step_pre_hook(self._before_update)
        inner.register_step_post_hook(lambda *_: self._skipped.restore())
        limit = optimizer.max_grad_norm
        engine = wrapped_engine(model, inner, section, ranks, dtype=dtype, max_grad_norm=limit)
        RowModel.__init__(self, engine, ranks)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        average = None if ema_decay is None else WeightAverage(trained, ema_decay, self._drop_whole_weights)
        StoredEngine.__init__(self, engine, ranks, dtype=dtype, average=average, parked=parked)

    @property
    def model(self) -> PackedModel:
        """The wrapped model; under ZeRO 3 its weights are partitioned."""
        return self._engine.module

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradient of `loss`, this rank's share of a global mean.

        DeepSpeed averages gradients over ranks; the factor makes it a sum.
        """
        self._engine.backward(loss * self.ranks.world_size, scale_wrt_gas=False)
        self._has_gradient = True

    def discard(self) -> StepOutcome:
        """Drops the gradients of `backward` and returns their norm; weights and optimizer state stay as they are."""
        if not self._has_gradient:
            return StepOutcome(0.0, False)
        self._discards = True
        try:
            update_without_leftovers(self._engine, self._section)
        finally:
            self._discards = self._has_gradient = False
        norm = self._engine.get_global_grad_norm()
        return StepOutcome(self._grad_norm if norm is None else float(norm), False)

    def step(self, lr: float) -> StepOutcome:
        """Clips, updates at learning rate `lr` (times a group's own scale), and clears gradients.

        Without a `backward` since the last step nothing changes, and `applied` is False.

        Raises: NonFiniteError before the update when the gradient's norm is not finite (float16 skips instead).
        """
        if not self._has_gradient:
            return StepOutcome(0.0, False)
        self._has_gradient = False
        number = self._engine.global_steps + 1
        for group, scale in zip(self._engine.optimizer.param_groups, self._lr_scales, strict=True):
            group["lr"] = lr * scale
        update_without_leftovers(self._engine, self._section)
        norm = self._engine.get_global_grad_norm()
        applied = not bool(getattr(self._engine.optimizer, "overflow", False))
        if not applied and self.dtype != "float16":  # ZeRO 1 to 3 silently skip such an update, in every type
            raise not_finite(math.nan, number)
        if applied and self._average is not None:
            self._average.update()
        known = self._grad_norm if norm is None else float(norm)
        return StepOutcome(known if applied else math.inf, applied)

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Runs just before weights change: computes and checks the norm, and clips by it where DeepSpeed does not."""
        if self._engine is None:  # at ZeRO 0 half precision makes a trial step, which would decay the weights
            self._skipped.skip(optimizer.param_groups)
            return
        norm, ours = getattr(self._engine.optimizer, "_global_grad_norm", None), []
        if norm is None:
            ours = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(ours)
        self._grad_norm = float(norm)
        if self._discards:
            self._skipped.skip(optimizer.param_groups)
            return
        if not math.isfinite(self._grad_norm):
            raise not_finite(self._grad_norm, self._engine.global_steps + 1)
        if ours and self._section.zero_stage == 0 and self._grad_norm > self._max_grad_norm:
            torch._foreach_mul_(ours, self._max_grad_norm / (self._grad_norm + 1e-6))

    def _drop_whole_weights(self) -> None:
        if self._section.zero_stage == 3:
            self._engine.optimizer.empty_partition_cache()

    @contextmanager
    def full_weights(self) -> Iterator[nn.Module]:
        """The Hugging Face model with whole weights, in eval mode, for generation: gathered once, not per token."""
        with self.evaluating(), unwrapped_zero3(self._engine) if self._section.zero_stage == 3 else nullcontext():
            yield self._engine.module.model

    @contextmanager
    def held_weights(self) -> Iterator[nn.Module]:
        """The Hugging Face model as this rank holds it, in eval mode: partitioned at ZeRO 3."""
        with self.evaluating():
            yield self._engine.module.model

    def state_dict(self) -> dict[str, Tensor]:
        """Whole weights on the CPU, on rank 0 (empty elsewhere), named as in the Hugging Face model."""
        import deepspeed

        state: dict[str, Tensor] = {}
        known: dict[int, str] = {}  # a parameter of several names, as tied embeddings are, is gathered once
        for name, parameter in self._engine.module.model.named_parameters(remove_duplicate=False):
            first = known.setdefault(id(parameter), name)
            if first != name:
                state |= {name: state[first]} if self.ranks.is_main else {}
                continue
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._section.zero_stage == 3):
                if self.ranks.is_main:
                    state[name] = parameter.detach().to("cpu", copy=True)
        if self.ranks.is_main:
            whole = self._engine.module.model.state_dict()
            state |= {name: whole[name].detach().cpu() for name in whole if name not in state}
        return state
