"""The packed row that a prefill reads: distinct prompts, each with the draft of its answer where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlhf.data.encode import Ids
from rlhf.rollout.sequences import ActiveSequence


@dataclass(frozen=True, slots=True)
class PrefillRow:
    """Segments of one packed row, and what is read of it.

    contexts: prompt and draft of each segment; lengths: of the prompts alone; order: the segment of each answer.
    """

    contexts: list[Ids]
    lengths: list[int]
    order: list[int]

    @classmethod
    def of(cls, answers: Sequence[ActiveSequence]) -> PrefillRow:
        """Answers with the same prompt and draft share a segment."""
        numbers: dict[tuple[int, bytes], int] = {}
        contexts: list[Ids] = []
        order = []
        for answer in answers:
            context = answer.context
            number = numbers.setdefault((len(answer.prompt), context.tobytes()), len(numbers))
            if number == len(contexts):
                contexts.append(context)
            order.append(number)
        return cls(contexts, [length for length, _ in numbers], order)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """ids, positions [N]; read [M]: where logits are needed, at the last token of a prompt and each of a draft."""
        starts = np.cumsum([0, *map(len, self.contexts)])
        places = [np.arange(len(context)) for context in self.contexts]
        read = [start + place[length - 1 :] for start, place, length in zip(starts, places, self.lengths, strict=False)]
        ids: npt.NDArray[np.integer] = np.concatenate(self.contexts)
        host = {"ids": ids, "positions": np.concatenate(places), "read": np.concatenate(read)}
        return {name: torch.from_numpy(values.astype(np.int64)) for name, values in host.items()}

    @property
    def firsts(self) -> list[int]:
        """Of each answer, the row of the logits that are read after its prompt."""
        counts = [len(context) - length + 1 for context, length in zip(self.contexts, self.lengths, strict=True)]
        begins = np.cumsum([0, *counts]).tolist()
        return [begins[number] for number in self.order]

    def spans(self, answers: Sequence[ActiveSequence]) -> list[tuple[int, int]]:
        """The columns of each answer's prompt and of the tokens it has: those of its draft that were kept."""
        starts = np.cumsum([0, *map(len, self.contexts)]).tolist()
        return [
            (starts[number], starts[number] + len(answer.prompt) + len(answer.tokens))
            for number, answer in zip(self.order, answers, strict=True)
        ]
