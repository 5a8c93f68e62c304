"""The one-number head of reward and value models: initialisation, scaling, and an offset of its scores."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

QUIET = 1e-3  # of the usual start, so that scores start equal whatever the scale of a model's hidden states
HEAD_WEIGHT = re.compile(r"(^|\.)score\.(modules_to_save\.\w+\.)?weight$")


def initialise_head(head: nn.Linear, *, seed: int, zero: bool = False) -> None:
    """Standard deviation 0.001 / sqrt(d + 1), or zeros for a value head.

    1 / sqrt(d + 1) (arXiv:2009.01325 appendix) supposes hidden states of size 1. Where they are tens of times larger,
    as in models whose final norm has large weights, scores start that far apart and have to be unlearnt first. With a
    thousandth of it every model starts at a loss of ln 2.
    """
    if zero:
        nn.init.zeros_(head.weight)
        return
    drawn = torch.empty(head.weight.shape, dtype=head.weight.dtype)  # on the CPU: one head per seed on every device
    drawn.normal_(0.0, QUIET * (head.in_features + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        head.weight.copy_(drawn)


def scaled_head(weights: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """`weights` by name with the head's multiplied by `factor`, also where an adapter trained it."""
    heads = [name for name in weights if HEAD_WEIGHT.search(name)]
    assert heads, "no weight of a one-number head"
    return {**weights, **{name: (weights[name].double() * factor).to(weights[name].dtype) for name in heads}}


def shift_scores(classifier: Any, offset: float) -> str:
    """Adds `offset` (reward units) to every score, and returns where it is stored.

    A final norm with a bias absorbs it exactly: w . (b + w * offset / |w|^2) = w . b + offset, so that any
    loader sees it. Otherwise it is stored in the configuration, which only this project's loader reads.

    Returns: "bias" or "config".
    """
    norm, weight = final_norm(classifier), classifier.score.weight
    if norm is None or norm.bias is None:
        classifier.config.score_shift = float(getattr(classifier.config, "score_shift", 0.0)) + offset
        return "config"
    direction = weight[0].double()
    if not direction.any():
        raise ValueError("the head's weight is zero: no bias can shift its score")
    step = direction * (offset / direction.dot(direction))
    with torch.no_grad():
        norm.bias.copy_((norm.bias.double() + step).to(norm.bias.dtype))
    return "bias"


def final_norm(classifier: nn.Module) -> nn.LayerNorm | None:
    """The last LayerNorm of the backbone, when that is what the head reads."""
    backbone = getattr(classifier, str(classifier.base_model_prefix))
    norm = getattr(backbone, "final_layer_norm", None) or getattr(backbone, "ln_f", None)
    return norm if isinstance(norm, nn.LayerNorm) else None
