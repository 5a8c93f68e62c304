"""NEFTune: uniform noise on the embeddings of training sequences (arXiv:2310.05914, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STREAM = 2310_05914  # sets these draws apart from others of the same seed


def embedding_noise(
    lengths: Sequence[int], places: Sequence[int], width: int, *, alpha: float, seed: int, step: int
) -> Tensor:
    """Noise [1, T, width] float32 for one packed row: uniform in +- alpha / sqrt(L * width) for a sequence of L tokens.

    Each sequence has its own stream, named by the run's seed, the step and its place in the global batch, so the noise
    is the same on any number of ranks, in any packing and any micro-batch, and a row that is in a batch twice gets two.

    Args:
        lengths: tokens of each sequence in the row; T is their sum. None are an idle row of one token, left as it is.
        places: of these sequences in the global batch of this step.
    """
    if not lengths:
        return torch.zeros(1, 1, width)
    pieces = []
    for length, place in zip(lengths, places, strict=True):
        draws = np.random.default_rng((seed, step, place, STREAM)).random((length, width), dtype=np.float32)
        pieces.append((2 * draws - 1) * np.float32(alpha / math.sqrt(length * width)))
    return torch.from_numpy(np.concatenate(pieces))[None]
