"""NEFTune: uniform noise on the embeddings of training sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STREAM = 2310_05914  # keeps these random streams apart from others of the same seed


def noise_bound(num_tokens: int, width: int, *, alpha: float) -> float:
    """Largest noise on an entry of a sequence's embeddings: alpha / sqrt(num_tokens * width).

    Source:  arXiv:2310.05914 algorithm 1.
    """
    return alpha / math.sqrt(num_tokens * width)


def embedding_noise(
    lengths: Sequence[int], places: Sequence[int], width: int, *, alpha: float, seed: int, step: int
) -> Tensor:
    """Noise [1, T, width] float32 for one packed row, uniform within +-`noise_bound` of each sequence.

    Each sequence has its own random stream, seeded by (seed, step, place). So the noise does not depend on the number
    of ranks, the packing or the micro-batch, and two copies of a sequence in one batch get different noise.

    Shapes:  lengths, the tokens of each sequence in the row, T is their sum; places, the number of each sequence in
             the global batch of this step. Empty lengths are an idle row of one token, whose noise is 0.
    Returns: [1, T, width] in the embeddings' unit.
    Source:  arXiv:2310.05914 algorithm 1.
    """
    if not lengths:
        return torch.zeros(1, 1, width)
    pieces = []
    for length, place in zip(lengths, places, strict=True):
        uniform = np.random.default_rng((seed, step, place, STREAM)).random((length, width), dtype=np.float32)
        pieces.append((2 * uniform - 1) * np.float32(noise_bound(length, width, alpha=alpha)))
    return torch.from_numpy(np.concatenate(pieces))[None]
