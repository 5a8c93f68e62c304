"""Several trained roles in one DeepSpeed engine: with a learning rate, a clip and a gradient norm per role."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.config.sections import DeepSpeedSection, OptimizerFields
from rlhf.engine.deepspeed import InferenceModel, StepOutcome
from rlhf.engine.ema import WeightAverage
from rlhf.engine.gradients import SkippedGroups, update_without_leftovers
from rlhf.engine.groups import parameter_groups
from rlhf.engine.optimizers import optimizer_of, optimizer_options
from rlhf.engine.ranks import Ranks
from rlhf.engine.rows import RowModel
from rlhf.engine.saving import StoredEngine
from rlhf.engine.wrapping import not_finite, wrapped_engine
from rlhf.models.loading import PackedCausalLM
from rlhf.models.shared import SharedBackbone


class SharedEngine(StoredEngine):
    """A backbone under DeepSpeed (ZeRO 0 to 2) whose roles are trained separately.

    One optimizer has parameter groups per role. DeepSpeed's own clipping is off: it would scale all roles by their
    common norm. Just before the optimizer steps, each role's gradient is clipped by its own norm, and the gradient of a
    role that is not stepped is dropped, so that its weights and moments stay as they are.

    Args:
        trained: optimizer settings of each trained role; all other parameters must be frozen.
        ema_decay: keeps a running average of the actor's weights.
        parked: separate offloaded models that leave the device during training.
    """

    def __init__(
        self,
        backbone: SharedBackbone,
        trained: Mapping[str, OptimizerFields],
        section: DeepSpeedSection,
        ranks: Ranks,
        *,
        dtype: str,
        ema_decay: float | None = None,
        parked: Sequence[InferenceModel] = (),
    ) -> None:
        self.trained, self._section = dict(trained), section
        groups = [group for role, fields in trained.items() for group in _role_groups(backbone, role, fields)]
        inner = optimizer_of(groups, next(iter(trained.values())), offload=section.offload_optimizer)
        self._engine: Any = None
        self._skipped = SkippedGroups(keeps_buffers=section.offload_optimizer)
        inner.register_step_pre_hook(self._before_update)
        inner.register_step_post_hook(lambda *_: self._skipped.restore())
        engine = wrapped_engine(backbone, inner, section, ranks, dtype=dtype, max_grad_norm=0.0)
        self._groups = [(str(group["role"]), float(group["lr_scale"])) for group in groups]
        self._gathered: set[str] = set()
        self._stepping: set[str] = set()
        self._norms: dict[str, float] = {}
        if section.zero_stage and hasattr(engine.optimizer, "scaled_global_norm"):
            engine.optimizer.scaled_global_norm = self._measure_partitions
        learning = [p for name, p in backbone.named_parameters() if backbone.role_of(name) == "actor"]
        average = None if ema_decay is None else WeightAverage(learning, ema_decay, lambda: None)
        kept = next(iter(trained.values())).optimizer
        super().__init__(engine, ranks, dtype=dtype, optimizer=kept, average=average, parked=parked)

    @property
    def backbone(self) -> SharedBackbone:
        module: SharedBackbone = self._engine.module
        return module

    def savable(self) -> dict[str, SharedEngine]:
        """What a checkpoint holds, by the name of its folder."""
        return {"shared": self}

    def backward(self, role: str, loss: Tensor) -> None:
        """Accumulates the gradient of `loss`, this rank's share of a global mean, as `TrainedModel.backward` does."""
        self.backbone.select(role)  # recomputed activations must be those of this role
        self._engine.backward(loss * self.ranks.world_size, scale_wrt_gas=False)
        self._gathered.add(role)

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]:
        """One update of the roles in `rates` that have a gradient; all gradients are dropped after it. The outcome of
        a role that was not stepped has the norm of its dropped gradient.

        Raises: NonFiniteError before the update when the norm of such a role is not finite (float16 skips instead).
        """
        self._stepping, gathered = self._gathered & set(rates), self._gathered
        self._gathered = set()
        if not gathered:
            return {role: StepOutcome(0.0, False) for role in self.trained}
        for group, (role, scale) in zip(self._engine.optimizer.param_groups, self._groups, strict=True):
            group["lr"] = rates.get(role, 0.0) * scale
        number, self._norms = self._engine.global_steps + 1, {}
        update_without_leftovers(self._engine, self._section)
        if getattr(self._engine.optimizer, "overflow", False):
            if self.dtype != "float16":
                raise not_finite(math.nan, number)
            return {role: StepOutcome(math.inf if role in gathered else 0.0, False) for role in self.trained}
        if self._average is not None and "actor" in self._stepping:
            self._average.update()
        return {role: StepOutcome(self._norms.get(role, 0.0), role in self._stepping) for role in self.trained}

    def _measure_partitions(self) -> Tensor:
        """Replaces the global norm of ZeRO 1 and 2, which is computed when all gradients are complete and none is used:
        records the norm of each role, and returns that of the stepped ones."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        zero = self._engine.optimizer
        norms = []
        for number, parameters in enumerate(zero.params_in_partition):
            if zero.cpu_offload:
                norms.append(zero.complete_grad_norm_calculation_for_cpu_offload(parameters))
            else:
                norms.append(zero.get_grad_norm_direct(zero.averaged_gradients[number], parameters))
        for role in self.trained:
            own = [norm for norm, (owner, _) in zip(norms, self._groups, strict=True) if owner == role]
            self._norms[role] = float(combine_grad_norm_groups(own)) / float(zero.loss_scale)
        moving = [norm for norm, (owner, _) in zip(norms, self._groups, strict=True) if owner in self._stepping]
        return combine_grad_norm_groups(moving or [torch.zeros((), device=self.ranks.device)])

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Runs just before weights change: once per group at ZeRO 1 and 2, else once."""
        if self._engine is None:  # at ZeRO 0 half precision makes a trial step, which would decay the weights
            self._skipped.skip(optimizer.param_groups)
            return
        if not self._norms:
            self._measure_whole(optimizer)
        for group in optimizer.param_groups:
            role = group["role"]
            if role not in self._stepping:
                self._skipped.skip([group])
                continue
            norm, most = self._norms[role], self.trained[role].max_grad_norm
            if not math.isfinite(norm):
                raise not_finite(norm, self._engine.global_steps + 1)
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if norm > most and gradients:
                torch._foreach_mul_(gradients, most / (norm + 1e-6))

    def _measure_whole(self, optimizer: torch.optim.Optimizer) -> None:
        """Norms by role where one optimizer call steps every group."""
        device = self.ranks.device
        squares = {role: torch.zeros((), dtype=torch.float64, device=device) for role in self.trained}
        for group in optimizer.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if gradients:
                norm = torch.nn.utils.get_total_norm(gradients)
                squares[group["role"]] += norm.to(device, torch.float64).square()
        parts = list(squares.values())
        # At ZeRO 1 and above each rank holds a part. One read for all roles: each would wait for the device.
        totals = self.ranks.global_sum(*parts) if self._section.zero_stage else torch.stack(parts).tolist()
        self._norms = {role: math.sqrt(total) for role, total in zip(squares, totals, strict=True)}


class SharedFrozenRole(RowModel):
    """A role of a shared backbone; a frozen one is for the methods that infer."""

    def __init__(self, shared: SharedEngine, role: str) -> None:
        super().__init__(shared._engine, shared.ranks, role=role)
        self._shared, self._role = shared, role

    @contextmanager
    def full_weights(self) -> Iterator[nn.Module]:
        """The Hugging Face model with the adapter of the role, in eval mode, for generation."""
        with self.evaluating():
            self._shared.backbone.select(self._role)
            yield self._shared.backbone.language.model

    held_weights = full_weights


class SharedTrainedRole(SharedFrozenRole):
    """A trained role of a shared backbone, with the interface of `TrainedModel`."""

    @property
    def dtype(self) -> str:
        return self._shared.dtype

    def train(self) -> None:
        self._shared.train()

    def backward(self, loss: Tensor) -> None:
        self._shared.backward(self._role, loss)


class SharedActor(SharedTrainedRole):
    """The actor, which is exported."""

    @property
    def model(self) -> PackedCausalLM:
        return self._shared.backbone.language

    def averaged(self) -> AbstractContextManager[None]:
        return self._shared.averaged()

    def state_dict(self) -> dict[str, Tensor]:
        """On rank 0 the adapter of the role and all embeddings, on the CPU, named as in the adapted model; else {}."""
        return self._shared.backbone.role_state(self._role) if self.ranks.is_main else {}


def _role_groups(backbone: SharedBackbone, role: str, fields: OptimizerFields) -> list[dict[str, Any]]:
    own = [(name, value) for name, value in backbone.named_parameters() if backbone.role_of(name) == role]
    options = {"role": role, **optimizer_options(fields)}
    return [{**group, **options} for group in parameter_groups(own, fields.weight_decay, fields.lr_groups)]
