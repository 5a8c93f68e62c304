"""Frozen models that lie in CPU memory and are on the device only while they are used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlhf.data.transfer import page_locked


class ParkingModel:
    """Puts a frozen model on a device and takes it off again.

    Its weights do not change, so one copy stays in CPU memory for the whole run (page-locked beside a GPU, which reads
    such memory at full speed and without making the host wait), and leaving the device copies nothing. Weights in four
    bits belong together with tensors that only their own `to` moves: they are copied both ways.

    Args:
        module: on the CPU, without gradients, and held by nobody else.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module, self._device, self._fetched = module, device, False
        self._moves_itself = any(hasattr(each, "quant_state") for each in module.parameters())
        self._kept: list[tuple[dict[str, Any], str, Tensor]] = []
        if not self._moves_itself:
            self._keep()

    def _keep(self) -> None:
        copies: dict[int, Tensor] = {}  # a tensor under two names stays one
        seen: list[Tensor] = []
        for owner in self._module.modules():
            for registry in (owner._parameters, owner._buffers):
                for name, tensor in registry.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in copies:
                        kept = page_locked(tensor.detach(), self._device)
                        copies[id(tensor)] = kept
                        seen.append(tensor)  # an id counts while its tensor is there
                        tensor.data = kept  # frees the first copy: no second whole model is held
                    self._kept.append((registry, name, copies[id(tensor)]))
        self._put({id(copy): copy for copy in copies.values()})

    def fetch(self) -> None:
        """Puts the weights on the device, if they are not there."""
        if self._fetched:
            return
        self._fetched = True
        if self._moves_itself:
            self._module.to(self._device)
            return
        kept = {id(each): each for *_, each in self._kept}
        self._put({number: each.to(self._device, non_blocking=True) for number, each in kept.items()})

    def park(self) -> None:
        """Frees the device of the weights."""
        if not self._fetched:
            return
        self._fetched = False
        if self._moves_itself:
            self._module.to("cpu")
            return
        self._put({id(kept): kept for *_, kept in self._kept})

    def _put(self, tensors: dict[int, Tensor]) -> None:
        """Makes the tensors those of the module; the keys are the ids of the kept ones."""
        parameters: dict[int, nn.Parameter] = {}
        for registry, name, kept in self._kept:
            tensor = tensors[id(kept)]
            if isinstance(registry[name], nn.Parameter):
                tensor = parameters.setdefault(id(kept), nn.Parameter(tensor, requires_grad=False))
            registry[name] = tensor
