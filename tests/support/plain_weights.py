"""The weights of a model as an engine gets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from rlhf.rollout.vllm.weights import weight_groups, whole_weight


def plain_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of a Hugging Face model by their names without adapters, one at a time, as they are sent."""
    for group in weight_groups(model):
        for full, module, name in group.members:
            yield full, whole_weight(module, name)
