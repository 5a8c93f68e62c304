"""Proofs that the fast paths compute what the plain ones do, on this device and in this dtype."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch

from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import attempted
from rlhf.doctor.proofs_attention import FIX as USE_SDPA
from rlhf.doctor.proofs_attention import HeadShape, attention_proof
from rlhf.doctor.proofs_head import FIX as USE_WHOLE_HEAD
from rlhf.doctor.proofs_head import head_proof
from rlhf.doctor.proofs_optimizer import FIX as USE_TORCH_ADAM
from rlhf.doctor.proofs_optimizer import optimizer_proof
from rlhf.doctor.proofs_quantization import FIX as USE_WHOLE_WEIGHTS
from rlhf.doctor.proofs_quantization import quantization_proof
from rlhf.doctor.proofs_ranks import FIX as TURN_LINKS_OFF
from rlhf.doctor.proofs_ranks import reduction_proof
from rlhf.engine.ranks import Ranks
from rlhf.models.attention_choice import KernelSupport, varlen_obstacle
from rlhf.models.head import HeadKind

HEAD_SHAPES = tuple(HeadShape(8, key_heads, size) for size in (64, 128, 256) for key_heads in (8, 2))


@dataclass(frozen=True, slots=True)
class FastPaths:
    """The fast paths that a run takes; `attention` holds the shapes of the models that run on varlen."""

    attention: tuple[HeadShape, ...] = ()
    head: HeadKind = "whole"
    quantized: bool = False
    cpu_optimizer: bool = False


def stage_proofs(ranks: Ranks, dtype: torch.dtype, taken: FastPaths) -> list[Check]:
    """The proofs of the fast paths that a run takes and of the all-reduce, on tensors so small that it takes no time.

    Must be called by all ranks. Random numbers of the run are left as they are.
    """
    device = ranks.device
    checks = [
        _proof(_attention_name(shape), partial(attention_proof, device, dtype, shape), USE_SDPA)
        for shape in taken.attention
    ]
    if taken.head != "whole":
        checks.append(_proof(f"{taken.head} head", partial(head_proof, device, dtype, taken.head), USE_WHOLE_HEAD))
    if taken.quantized:
        checks.append(_proof("4-bit weights", partial(quantization_proof, device, dtype), USE_WHOLE_WEIGHTS))
    if taken.cpu_optimizer:
        checks.append(_proof("DeepSpeedCPUAdam", optimizer_proof, USE_TORCH_ADAM))
    if ranks.world_size > 1:
        checks.append(_proof("all-reduce", partial(reduction_proof, ranks, dtype), TURN_LINKS_OFF))
    return checks


def all_proofs(device: torch.device, dtype: torch.dtype, ranks: Ranks | None = None) -> list[Check]:
    """Every proof, at sizes that take seconds; one that cannot run here is skipped, with the reason in `detail`.

    With `ranks` the all-reduce is proved too, and every rank must call this. Nothing is raised: a kernel or a build
    that fails is a failed check, and its `fix` names the key to turn.
    """
    support, on_gpu = KernelSupport.on(device), device.type == "cuda"
    no_liger = "" if on_gpu else f"it runs on a CUDA device, and this is {device.type}"
    checks = [
        _proof(
            _attention_name(shape),
            partial(attention_proof, device, dtype, shape, longest=300),
            USE_SDPA,
            obstacle=varlen_obstacle(shape.size, dtype, support),
        )
        for shape in HEAD_SHAPES
    ]
    large = {"tokens": 256, "width": 256, "words": 5000}
    checks += [
        _proof("chunked head", partial(head_proof, device, dtype, "chunked", **large), USE_WHOLE_HEAD),
        _proof(
            "liger head",
            partial(head_proof, device, dtype, "liger", **large),
            USE_WHOLE_HEAD,
            obstacle=no_liger or _absent("liger_kernel"),
        ),
        _proof(
            "4-bit weights",
            partial(quantization_proof, device, dtype, width=512, tokens=64),
            USE_WHOLE_WEIGHTS,
            obstacle=_absent("bitsandbytes"),
        ),
        _proof("DeepSpeedCPUAdam", partial(optimizer_proof, values=100_003), USE_TORCH_ADAM),
    ]
    if ranks is not None:
        checks.append(_proof("all-reduce", partial(reduction_proof, ranks, dtype, repeats=1000), TURN_LINKS_OFF))
    return checks


def _proof(name: str, prove: Callable[[], Check], fix: str, *, obstacle: str = "") -> Check:
    return Check(name, "skipped", obstacle) if obstacle else attempted(name, prove, fix=fix)


def _attention_name(shape: HeadShape) -> str:
    return f"varlen attention, {shape.heads}/{shape.key_heads} heads of {shape.size}"


def _absent(package: str) -> str:
    return "" if find_spec(package) else f"{package} is not installed"
