"""One decode step as the device sees it: tensors at fixed addresses, and what is computed from them.

Nothing of a step comes from the host: the newest tokens, their positions and the random numbers lie on the device. The
host reads the drawn tokens, once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.data.transfer import moved
from rlhf.rollout.cache import SlotCache
from rlhf.rollout.sampling import DecodingGroup, draw_tokens
from rlhf.rollout.sequences import ActiveSequence


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a step reads and advances, for S slots and C columns.

    newest, positions, ceiling [S] int64: the newest token, its position, and the highest position that the answer
    reaches, where an ended one stays; uniform [S, C] float64: the random numbers by the column of the token before.
    """

    newest: Tensor
    positions: Tensor
    ceiling: Tensor
    uniform: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, int], device: torch.device) -> SlotState:
        newest, positions, ceiling = (torch.zeros(shape[0], dtype=torch.int64, device=device) for _ in range(3))
        return cls(newest, positions, ceiling, torch.zeros(shape, dtype=torch.float64, device=device))

    def seat(self, slots: Sequence[int], answers: Sequence[ActiveSequence], column: int) -> None:
        """Writes the answers into their slots; `column` is the next one. One transfer to the device."""
        width = self.uniform.shape[1] - column
        rows = np.zeros((len(slots), 4 + width))  # float64 holds these integers exactly
        for row, slot, answer in zip(rows, slots, answers, strict=True):
            row[:4] = slot, answer.tokens[-1], answer.cached, answer.last_position
            draws = answer.draws[len(answer.tokens) :][:width]
            row[4 : 4 + len(draws)] = draws
        block = moved(torch.from_numpy(rows), self.newest.device)
        places, newest, positions, ceiling = block[:, :4].long().unbind(1)
        self.newest.index_copy_(0, places, newest)
        self.positions.index_copy_(0, places, positions)
        self.ceiling.index_copy_(0, places, ceiling)
        self.uniform[:, column:].index_copy_(0, places, block[:, 4:])


@dataclass(frozen=True, slots=True)
class StepOutput:
    """drawn [2, S]: as `draw_tokens`; logits [S, V] float32."""

    drawn: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """The computation of a step; `groups` are the slots by their settings."""

    model: Any
    cache_argument: str
    cache: SlotCache
    state: SlotState
    groups: Sequence[DecodingGroup]

    def run(self) -> StepOutput:
        """Reads the newest tokens, draws the next ones and puts them in their place."""
        state, cache = self.state, self.cache
        logits = self.model(
            input_ids=state.newest[:, None],
            attention_mask=cache.next_mask(),
            position_ids=state.positions[:, None],
            use_cache=True,
            logits_to_keep=1,
            **{self.cache_argument: cache},
        ).logits[:, -1]
        logits = logits.float()
        if cache.column is None:
            uniform = state.uniform[:, cache.length]
        else:
            uniform = state.uniform.index_select(1, cache.column).squeeze(1)
        drawn = draw_tokens(logits, uniform, self.groups)
        state.newest.copy_(drawn[0])
        torch.minimum(state.positions.add_(1), state.ceiling, out=state.positions)
        if cache.column is not None:
            cache.column.add_(1)
        return StepOutput(drawn, logits)

    def changed(self) -> list[Tensor]:
        """Every tensor that a step writes and the next one reads, but keys and values, which it writes over."""
        tensors = [self.state.newest, self.state.positions, self.cache.mask]
        return tensors if self.cache.column is None else [*tensors, self.cache.column]
