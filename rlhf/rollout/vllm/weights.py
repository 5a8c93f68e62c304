"""The policy's weights as an engine loads them: whole, merged, dequantised, and named as in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.engine.partitioned import whole
from rlhf.errors import ModelError
from rlhf.models.adapters import is_adapted, merged_weight
from rlhf.models.loading import unwrap_peft
from rlhf.models.quantization import dequantized


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """Parameters that become checkpoint tensors together: one, or those that a checkpoint holds joined or split.

    members: the parameter's name without adapters, its module, and its name inside the module.
    """

    members: list[tuple[str, nn.Module, str]]

    def parameters(self) -> list[nn.Parameter]:
        """All that must be whole to compute the tensors, adapters included."""
        found: list[nn.Parameter] = []
        for _, module, name in self.members:
            found += list(module.parameters()) if _is_merged(module, name) else [_own(module, name)]
        return found

    def count(self) -> int:
        """Numbers in the weights, without their adapters."""
        return sum(_count(_own(module, name)) for _, module, name in self.members)


def weight_groups(model: Any) -> list[WeightGroup]:
    """All weights of a Hugging Face model, in the order of its modules."""
    base = unwrap_peft(model)
    adapted = {name: module for name, module in base.named_modules() if is_adapted(module)}
    groups: dict[str, list[tuple[str, nn.Module, str]]] = {}
    for full, parameter in base.named_parameters():
        inside = next((name for name in adapted if full.startswith(f"{name}.")), None)
        if inside is None:
            path, _, name = full.rpartition(".")
            member = (full, base.get_submodule(path), name)
        elif full.startswith(f"{inside}.base_layer."):
            member = (full.replace(".base_layer", ""), adapted[inside], full.rpartition(".")[2])
        else:
            continue  # an adapter's own, which is merged
        assert parameter is _own(member[1], member[2])
        groups.setdefault(_group_key(base, member[0]), []).append(member)
    return [WeightGroup(members) for members in groups.values()]


@torch.no_grad()
def whole_weight(module: nn.Module, name: str) -> Tensor:
    """A parameter of a module, dequantised, with the module's active adapters added in a copy."""
    return merged_weight(module) if _is_merged(module, name) else dequantized(_own(module, name))


@torch.no_grad()
def checkpoint_tensors(model: Any, group: WeightGroup, dtype: torch.dtype) -> dict[str, Tensor]:
    """The group's tensors by their names in a checkpoint, in `dtype`; its parameters must be whole.

    Raises: ModelError for weights that cannot be brought into the form of a checkpoint.
    """
    from transformers.core_model_loading import revert_weight_conversion

    held = {full: whole_weight(module, name).to(dtype) for full, module, name in group.members}
    try:
        return revert_weight_conversion(unwrap_peft(model), held)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{', '.join(held)} cannot be named as in a checkpoint: {error}",
            where="rollout.backend",
            fix="set rollout.backend=transformers",
        ) from error


def buckets(groups: list[WeightGroup], limit: int) -> Iterator[list[WeightGroup]]:
    """Consecutive groups of at most `limit` numbers together; a larger group is alone."""
    bucket: list[WeightGroup] = []
    size = 0
    for group in groups:
        if bucket and size + group.count() > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append(group)
        size += group.count()
    if bucket:
        yield bucket


@contextmanager
def gathered(bucket: list[WeightGroup]) -> Iterator[None]:
    """Makes the bucket's parameters whole on every rank (ZeRO 3) until the end."""
    with whole([parameter for group in bucket for parameter in group.parameters()]):
        yield


def _is_merged(module: nn.Module, name: str) -> bool:
    return is_adapted(module) and name == "weight"


def _own(module: nn.Module, name: str) -> Any:
    layer: Any = module.base_layer if is_adapted(module) else module
    return getattr(layer, name)


def _count(weight: Any) -> int:
    state = getattr(weight, "quant_state", None)  # two numbers in a byte
    return int(state.shape.numel()) if state is not None else int(getattr(weight, "ds_numel", weight.numel()))


def _group_key(model: Any, name: str) -> str:
    """What identifies the checkpoint tensors that a parameter belongs to."""
    from transformers.core_model_loading import WeightConverter

    for conversion in getattr(model, "_weight_conversions", None) or []:
        reverse = conversion.reverse_transform()
        if isinstance(reverse, WeightConverter):
            renamed, pattern = reverse.rename_source_key(name)
            if pattern is not None:
                return renamed
    return name
