"""The weights that a run starts from, kept on the disk so that no second model stays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from rlhf.engine.exchange import exchanged, local_part
from rlhf.engine.ranks import Ranks

CPU = torch.device("cpu")


class StartingWeights:
    """The trained parameters as they are now, in a file: of rank 0 where all ranks hold the same, else one per rank.

    Frozen parameters stay in the model: of LoRA only the adapters are kept.

    Args:
        parameters: those that are trained.
        folder: where the files go; created.
        release: called before weights are exchanged; must drop gathered copies, which would be stale.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], folder: Path, ranks: Ranks, release: Callable[[], None]
    ) -> None:
        self._parameters, self._release, self._ranks = list(parameters), release, ranks
        self._own = any(hasattr(parameter, "ds_tensor") for parameter in parameters) or ranks.is_main
        holder = ranks.rank if self._own else 0
        self._file = folder / f"start-{holder:04d}.pt"
        if self._own:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save([local_part(each).detach().to(CPU, copy=True) for each in self._parameters], self._file)
        ranks.barrier()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts them in the place of the trained weights, which wait in CPU memory and return bit for bit."""
        values = torch.load(self._file, map_location=CPU, mmap=True, weights_only=True)
        with exchanged(self._parameters, values, self._release, aside=CPU):
            yield

    def remove(self) -> None:
        """Deletes the files; nothing may be put in place afterwards."""
        self._ranks.barrier()
        if self._own:
            self._file.unlink(missing_ok=True)
