"""Answers kept to be drafts: their tokens, and probabilities of the distributions that these were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rlhf.data.encode import Ids
from rlhf.rollout.base import Floats

Columns = npt.NDArray[np.unsignedinteger]
VALUE_BYTES, FEW_IDS = 4, 2**16


def id_type(vocabulary: int) -> type[np.unsignedinteger]:
    """The smallest type that holds every id."""
    return np.uint16 if vocabulary <= FEW_IDS else np.uint32


def bytes_per_kept(vocabulary: int) -> int:
    """Bytes of one kept probability with its id."""
    return VALUE_BYTES + np.dtype(id_type(vocabulary)).itemsize


def bytes_per_token(vocabulary: int, top: int | None) -> int:
    """Bytes that the kept probabilities of one token take."""
    if top is None or top >= vocabulary:
        return VALUE_BYTES * vocabulary
    return top * bytes_per_kept(vocabulary)


@dataclass(frozen=True, slots=True)
class AnswerDraft:
    """T tokens, and for each K probabilities of the distribution it was drawn from.

    tokens [T]; values [T, K] float32; ids [T, K] of these probabilities, or None where K is the whole vocabulary.
    """

    tokens: Ids
    values: Floats
    ids: Columns | None

    def own(self, count: int) -> Floats:
        """The kept probability of each of the first `count` tokens, [count]; 0 where it was not kept."""
        tokens = self.tokens[:count].astype(np.int64)
        if self.ids is None:
            found: Floats = np.take_along_axis(self.values[:count], tokens[:, None], 1)[:, 0]
            return found
        return np.where(self.ids[:count] == tokens[:, None], self.values[:count], 0).sum(1, dtype=np.float32)

    def row(self, position: int, vocabulary: int) -> Floats:
        """The kept probabilities at one position, [V]; 0 where none was kept."""
        if self.ids is None:
            return self.values[position]
        row = np.zeros(vocabulary, np.float32)
        row[self.ids[position]] = self.values[position]
        return row


@dataclass(slots=True)
class DraftRows:
    """Records what a draft needs besides its tokens, in blocks of consecutive tokens.

    Args:
        top: largest probabilities that are kept of each distribution; None keeps all.
    """

    top: int | None
    values: list[Floats] = field(default_factory=list)
    ids: list[Columns] = field(default_factory=list)

    def add(self, values: Floats, ids: Columns | None) -> None:
        """The next tokens' kept probabilities [n, K] and their ids."""
        self.values.append(values)
        if ids is not None:
            self.ids.append(ids)

    def draft(self, tokens: Sequence[int]) -> AnswerDraft:
        """The draft of an answer with these tokens, each of which was recorded."""
        values = np.concatenate(self.values)
        assert len(values) == len(tokens), "a token without its distribution"
        return AnswerDraft(np.asarray(tokens, np.int32), values, np.concatenate(self.ids) if self.ids else None)


def largest(probabilities: Tensor, top: int | None) -> tuple[Floats, Columns | None]:
    """The `top` largest probabilities of each row [N, V] with their ids, on the host; None: all, without ids."""
    vocabulary = probabilities.shape[1]
    if top is None or top >= vocabulary:
        return probabilities.cpu().numpy(), None
    found = probabilities.topk(top, dim=-1, sorted=False)
    assert vocabulary <= 2**24, "float32 holds integers up to here"
    values, ids = torch.stack([found.values, found.indices.float()]).cpu().numpy()  # the host waits once
    return values, ids.astype(id_type(vocabulary))
