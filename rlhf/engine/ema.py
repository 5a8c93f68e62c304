"""A running average of trained weights, in float32, partitioned over ranks as the weights are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from rlhf.engine.exchange import exchanged, local_part
from rlhf.errors import CheckpointError


class WeightAverage:
    """Exponential moving average of parameters: average = decay * average + (1 - decay) * weights.

    The decay warms up as min(decay, (1 + n) / (10 + n)) with n the updates before this one, so that an early average
    does not stay near the start. At ZeRO 3 it is an average of this rank's partitions.

    Args:
        parameters: what is averaged; it starts at their present values.
        decay: between 0 and 1.
        release: called before weights are exchanged; must drop gathered copies, which would be stale.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float, release: Callable[[], None]) -> None:
        self._parameters, self._decay, self._release = list(parameters), decay, release
        self._average = [local_part(parameter).detach().to(torch.float32, copy=True) for parameter in self._parameters]
        self._num_updates = 0
        self._swapped = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        return self._parameters

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the present weights."""
        assert not self._swapped, "weights were updated while the average stood in their place"
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(local_part(parameter).float(), 1 - decay)
        self._num_updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the average in place of the weights, which return bit for bit."""
        assert not self._swapped, "the average stands in for the weights already"
        self._swapped = True
        try:
            with exchanged(self._parameters, self._average, self._release):
                yield
        finally:
            self._swapped = False

    def save(self, file: Path) -> None:
        torch.save({"num_updates": self._num_updates, "average": self._average}, file)

    def load(self, file: Path) -> None:
        """Loads what `save` wrote.

        Raises: CheckpointError when there is none, or it is of other weights.
        """
        if not file.is_file():
            fix = "resume with the settings it was saved by (train.ema_decay)"
            raise CheckpointError(f"{file} is missing: the checkpoint holds no average of weights", fix=fix)
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if [each.shape for each in saved["average"]] != [each.shape for each in self._average]:
            raise CheckpointError(f"{file} averages other weights", fix="resume with the model it was saved by")
        for average, value in zip(self._average, saved["average"], strict=True):
            average.copy_(value)
        self._num_updates = int(saved["num_updates"])

    @torch.no_grad()
    def fill(self, whole: Callable[[nn.Parameter], Tensor], num_updates: int, *, rank: int) -> None:
        """Takes the part of `rank` from whole averages that another number of ranks saved."""
        for average, parameter in zip(self._average, self._parameters, strict=True):
            value = whole(parameter).reshape(-1)
            begin = rank * average.numel() if hasattr(parameter, "ds_tensor") else 0
            part = value[begin : begin + average.numel()]
            average.view(-1)[: part.numel()].copy_(part)
        self._num_updates = num_updates


def average_file(folder: Path, rank: int) -> Path:
    """Where `rank` keeps its average in an engine's folder."""
    return folder / f"average-{rank:04d}.pt"
