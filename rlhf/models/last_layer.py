"""The last layer's MLP at the read positions alone.

What a head reads at a position depends on other positions through attention only. After the last attention nothing
mixes positions any more, so the last MLP is wanted where the output is read: at the ends of answers for a reward model,
at answer tokens for a loss. An MLP is two thirds of a layer's products: a reward model of 24 layers is spared 3 % of
them, one of 4 layers a sixth, and both the activations of that MLP.

The positions travel as a keyword argument of `forward` down to attention, as `Segments` do, so that recomputed
activations see them too. There `LastMLP` takes them and applies them to the MLP that follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POINTWISE = (nn.Linear, Conv1D, nn.Dropout, nn.Identity, nn.LayerNorm)
KEY = "rlhf_last_mlp"


class LastMLP:
    """Hooks around the last MLP of a model; one attention call makes one MLP call partial."""

    def __init__(self) -> None:
        self.enabled = True
        self._read: Tensor | None = None
        self._taken: tuple[Tensor, int] | None = None

    def attended(self, read: Tensor | None) -> None:
        """Called by attention: the MLP that follows is wanted at `read` [P] of T positions; None: at all."""
        self._read = read if self.enabled else None

    def before(self, _: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """Hands the MLP the read positions [1, P, D] of its input [1, T, D]."""
        read, self._read, self._taken = self._read, None, None
        if read is None or len(inputs) != 1 or inputs[0].ndim != 3 or inputs[0].shape[0] != 1:
            return None
        if len(read) >= inputs[0].shape[1]:  # nothing is saved
            return None
        self._taken = read, inputs[0].shape[1]
        return (inputs[0].index_select(1, read),)

    def after(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """Puts what the MLP computed in its place [1, T, D], with zeros elsewhere."""
        taken, self._taken = self._taken, None
        return None if taken is None else _Placed.apply(output, *taken)

    def ended(self, *_: Any) -> None:
        """Called after the layer: an MLP that comes before attention cannot be told where it is read."""
        self.enabled, self._read = self.enabled and self._read is None, None


class _Placed(torch.autograd.Function):
    """Rows [1, P, D] at their positions [P] in [1, T, D]. Of a position given several times the first row counts, in
    both directions: a dropout in the MLP may have drawn each of them anew."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, positions: Tensor, count: int) -> Tensor:
        own = torch.arange(len(positions), device=positions.device)
        first = own.new_full((count,), len(positions)).scatter_reduce_(0, positions, own, "amin")
        first = first.index_select(0, positions)
        ctx.save_for_backward(positions, first == own)
        return rows.new_zeros(1, count, rows.shape[2]).index_copy_(1, positions, rows.index_select(1, first))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        positions, counts = ctx.saved_tensors
        return gradient.index_select(1, positions) * counts[:, None], None, None


def read_last_mlp_in_part(model: Any) -> bool:
    """Lets a Hugging Face causal LM or classifier skip its last MLP where nothing is read; twice is once.

    Returns: whether it does. Layers whose MLP cannot be told to treat every position alike (experts, convolutions,
    weights outside linear layers) stay as they are.
    """
    backbone = getattr(model, getattr(model, "base_model_prefix", ""), None)
    if backbone is None:
        return False
    lists = [each for each in backbone.children() if isinstance(each, nn.ModuleList)]
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    layer = next((each[-1] for each in lists if len(each) == depth > 0), None)
    mlp = getattr(layer, "mlp", None)
    if layer is None or not isinstance(mlp, nn.Module) or not _alike_at_all_positions(mlp):
        return False
    if KEY in vars(layer):
        return True
    if any(isinstance(module, _CONVOLUTIONS) for module in layer.modules()):  # one behind the MLP would mix positions
        return False
    last = LastMLP()
    inside = set(mlp.modules())
    for module in layer.modules():
        if module not in inside:
            vars(module)[KEY] = last
    mlp.register_forward_pre_hook(last.before)
    mlp.register_forward_hook(last.after)
    layer.register_forward_hook(last.ended)
    return True


def _alike_at_all_positions(mlp: nn.Module) -> bool:
    return all(
        isinstance(module, POINTWISE)
        or type(module).__module__ in ACTIVATIONS
        or type(module).__name__.endswith("RMSNorm")
        or (any(True for _ in module.children()) and not any(True for _ in module.parameters(recurse=False)))
        for module in mlp.modules()
    ) and not any(isinstance(module, nn.ModuleList) for module in mlp.modules())
