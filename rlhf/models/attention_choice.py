"""Which attention kernel runs packed rows, and why: chosen here for every process that loads a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from rlhf.errors import ConfigError
from rlhf.models.attention import varlen_arguments

Wanted = Literal["auto", "sdpa", "varlen"]
HALF = (torch.float16, torch.bfloat16)
VARLEN_TORCH = "2.11"  # the first torch whose kernel takes what NEEDED names
NEEDED = ("scale", "window_size")
FLASH_CAPABILITY = (8, 0)  # Ampere
LARGEST_HEAD = 256
LARGEST_HEAD_CONSUMER = 192  # compute capability 8.6 to 8.9 and 12: too little shared memory for the backward pass


@dataclass(frozen=True, slots=True)
class KernelSupport:
    """What decides whether the variable-length kernel can run.

    Args:
        device: type of the device that computes, such as cuda.
        capability: compute capability of a CUDA device.
        arguments: names of the arguments of torch's kernel; empty where torch has none.
    """

    device: str
    capability: tuple[int, int] | None
    arguments: frozenset[str]

    @classmethod
    def on(cls, device: torch.device) -> KernelSupport:
        capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
        return cls(device.type, capability, varlen_arguments())


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """The kernel that runs, and the reason in words."""

    kind: Literal["sdpa", "varlen"]
    reason: str


def choose_attention(wanted: Wanted, config: Any, dtype: torch.dtype, support: KernelSupport) -> AttentionChoice:
    """The kernel for a model of this configuration: `auto` takes varlen wherever it can run.

    Raises: ConfigError for `varlen` where it cannot run.
    """
    if wanted == "sdpa":
        return AttentionChoice("sdpa", "model.attention=sdpa")
    obstacle = varlen_obstacle(head_size(config), dtype, support)
    if not obstacle:
        reason = (
            f"varlen runs on {support.device} in {str(dtype).removeprefix('torch.')}, head size {head_size(config)}"
        )
        return AttentionChoice("varlen", reason)
    if wanted == "varlen":
        raise ConfigError(
            f"model.attention = varlen cannot run here: {obstacle}",
            where="model.attention",
            expected=f"torch {VARLEN_TORCH} or later, a GPU of compute capability 8.0 or later, bfloat16 or float16 in "
            f"model.dtype, and heads of at most {LARGEST_HEAD} entries",
            fix="set model.attention=auto or model.attention=sdpa",
        )
    return AttentionChoice("sdpa", f"no varlen: {obstacle}")


def varlen_obstacle(size: int | None, dtype: torch.dtype, support: KernelSupport) -> str:
    """Why the variable-length kernel cannot run heads of `size` entries; empty where it can."""
    missing = [name for name in NEEDED if name not in support.arguments]
    if support.device != "cuda":
        return f"it runs on a CUDA device, and this run computes on {support.device}"
    if dtype not in HALF:
        return f"it takes bfloat16 and float16, and this run computes in {str(dtype).removeprefix('torch.')}"
    if missing:
        lacks = f"does not take {' and '.join(missing)}" if support.arguments else "does not exist"
        return f"the kernel of torch {torch.__version__} {lacks}; torch {VARLEN_TORCH} is the first that can be used"
    return _unfit(size, support.capability or (0, 0))


def _unfit(size: int | None, capability: tuple[int, int]) -> str:
    """Why a GPU of this compute capability cannot run heads of `size` entries."""
    if capability < FLASH_CAPABILITY:
        return f"it needs compute capability 8.0, and this GPU has {capability[0]}.{capability[1]}"
    if size is None:
        return "the model's configuration names no single head size"
    largest = LARGEST_HEAD_CONSUMER if capability[1] or capability[0] >= 12 else LARGEST_HEAD
    if size > largest or size % 8:
        return f"it takes head sizes up to {largest} that are multiples of 8, and the model's is {size}"
    return ""


def head_size(config: Any) -> int | None:
    """Entries of one attention head; None where a model has several sizes or does not say."""
    text = config.get_text_config()
    if getattr(text, "v_head_dim", None) is not None:
        return None
    named = getattr(text, "head_dim", None)
    width, heads = getattr(text, "hidden_size", None), getattr(text, "num_attention_heads", None)
    if isinstance(named, int):
        return named
    return width // heads if isinstance(width, int) and isinstance(heads, int) else None


def head_counts(config: Any) -> tuple[int, int]:
    """(query heads, key heads)."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    return heads, int(getattr(text, "num_key_value_heads", None) or heads)


def require_packable(config: Any, longest: int, *, key: str) -> None:
    """Refuses an architecture that packed attention, by either kernel, would compute wrongly.

    longest: most tokens of one sequence, which `key` limits.

    Raises: ConfigError for scores that are capped, and for a sliding window that a sequence can exceed.
    """
    text = config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None) is not None:
        raise ConfigError(
            f"{type(config).__name__} caps its attention scores, which no kernel of packed rows can do",
            where="model.attention",
            expected="a model without attn_logit_softcapping",
            fix="start from another model",
        )
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if window is None or (kinds and "sliding_attention" not in kinds) or longest <= window:
        return
    raise ConfigError(
        f"sequences of up to {longest} tokens are longer than the model's sliding window of {window}, and every kernel "
        "of model.attention sees whole sequences",
        where=key,
        expected=f"at most {window}",
        fix=f"set {key}={window} or less",
    )


def allow_cudnn(allowed: bool) -> None:
    """Whether SDPA may use cuDNN in this process.

    cuDNN builds a plan for every new pair of lengths and strides, and each packed row and decode step is new.
    """
    torch.backends.cuda.enable_cudnn_sdp(allowed)
