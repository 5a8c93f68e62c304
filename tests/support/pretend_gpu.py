"""A pretend GPU: tensors that say they lie on `gpu:0`, compute on the CPU, and refuse to meet a CPU tensor.

Code that runs under `PretendGpu` takes the paths it would take on a real device. A tensor left on the wrong device is
an error that names the line, as on a GPU; what a GPU would make the host wait for is counted in `synchronisations`,
what would be copied to it in `copies`, both by kind and line. Copies that the host would wait for (from memory that is
not pinned, or not asked for as non-blocking) are synchronisations too, of kind "blocking copy". Whole modules that are
moved are not counted.

Importing this module registers a backend and patches torch, so it needs a process of its own.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("gpu")
DEVICE = torch.device("gpu:0")
PACKAGE = str(Path(__file__).parents[2] / "rlhf")

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# Their result, or its shape, depends on values: the host must read the device.
READS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.repeat_interleave.Tensor,
}
Place = tuple[str, str]


@dataclass
class Counts:
    """Synchronisations and copies to the device, by (kind, line)."""

    synchronisations: Counter[Place] = field(default_factory=Counter)
    copies: Counter[Place] = field(default_factory=Counter)

    def clear(self) -> None:
        self.synchronisations.clear()
        self.copies.clear()


COUNTS = Counts()
MOVED_MODULES: list[torch.nn.Module] = []  # those inside `Module.to` at the moment


def _line() -> str:
    """The newest line of the package, or of transformers, that is being executed."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(PACKAGE) or "/transformers/" in frame.filename:
            return f"{frame.filename.split('site-packages/')[-1].removeprefix(PACKAGE)}:{frame.lineno}"
    return "outside"


def _synchronises(kind: str) -> None:
    if not MOVED_MODULES:
        COUNTS.synchronisations[kind, _line()] += 1


def _copies(kind: str, *, waits: bool) -> None:
    if not MOVED_MODULES:
        COUNTS.copies[kind, _line()] += 1
    if waits:
        _synchronises("blocking copy")


class DeviceTensor(Tensor):
    """A tensor of the pretend device, whose numbers are in `host`."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor, requires_grad: bool = False) -> DeviceTensor:
        made: Any = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.host = host
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.host})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def numpy(self, **_: Any) -> Any:  # type: ignore[override]
        raise TypeError("a tensor of the pretend GPU has no numpy array; copy it to the CPU first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor of the pretend GPU has no numpy array; copy it to the CPU first")

    def tolist(self) -> Any:
        _synchronises("tolist")
        return self.host.tolist()


class PretendGpu(TorchDispatchMode):
    """While active, tensors can be created on the pretend device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def _on_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, DeviceTensor)]
    if ours:
        _refuse_mixed(func, args, tensors)
        _count_reads(func, args)
    target = _target(func, args, kwargs, bool(ours))
    if func in COPIES:
        _count_copy(func, args, kwargs, target=target)
    wants_pinned = bool(kwargs.get("pin_memory"))
    plain = {**kwargs, **({"pin_memory": False} if wants_pinned else {})}
    if _on_device(kwargs.get("device")):
        plain["device"] = torch.device("cpu")
    out = func(*tree_map(_host, args), **tree_map(_host, plain))
    if not target:
        if wants_pinned:
            out.pretends_pinned = True
        return out
    wrapped = tree_map(lambda each: DeviceTensor(each) if type(each) is Tensor else each, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if ours or func._schema.is_mutable else wrapped


def _host(value: Any) -> Any:
    return value.host if isinstance(value, DeviceTensor) else value


def _target(func: Any, args: Any, kwargs: dict[str, Any], has_ours: bool) -> bool:
    """Whether the result lies on the device."""
    if func is aten.copy_.default:
        return isinstance(args[0], DeviceTensor)
    device = kwargs.get("device")
    return has_ours if device is None else _on_device(device)


def _refuse_mixed(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raises RuntimeError for tensors of both devices; scalars [] of the CPU may meet any, as in torch."""
    others = [each for each in tensors if not isinstance(each, DeviceTensor) and each.dim() > 0]
    if not others or func in COPIES:
        return
    if func in INDEXING and isinstance(args[0], DeviceTensor):
        values = args[2] if len(args) > 2 else None
        if not isinstance(values, Tensor) or isinstance(values, DeviceTensor) or values.dim() == 0:
            _copies("index on the host", waits=True)
            return
    shapes = [(type(each).__name__, tuple(each.shape)) for each in tensors]
    raise RuntimeError(f"tensors on two devices in {func} at {_line()}: {shapes}")


def _count_reads(func: Any, args: Any) -> None:
    if func in READS:
        _synchronises(str(func))
    if func in INDEXING:
        masks = [each for each in tree_leaves(args[1]) if isinstance(each, Tensor) and each.dtype == torch.bool]
        if masks:
            _synchronises("index by a mask")


def _count_copy(func: Any, args: Any, kwargs: dict[str, Any], *, target: bool) -> None:
    source = args[1] if func is aten.copy_.default else args[0]
    waits = not _is_non_blocking(func, args, kwargs)
    if target and not isinstance(source, DeviceTensor):
        _copies("copy", waits=waits or not getattr(source, "pretends_pinned", False))
    elif not target and isinstance(source, DeviceTensor):
        _synchronises("copy to the CPU")


def _is_non_blocking(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    if func is aten.copy_.default:
        return bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
    return bool(kwargs.get("non_blocking", False))


def _created(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor and torch.as_tensor, which do not pass through the dispatcher as one op."""

    def create(data: Any, *args: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        if isinstance(data, DeviceTensor):
            return data.to(device=data.device if device is None else device, dtype=dtype or data.dtype)
        made = original(data, *args, dtype=dtype, **options)
        return made.to(DEVICE) if _on_device(device) else made

    return create


def _indexed(original: Callable[..., Any]) -> Callable[..., Any]:
    """Tensor.__getitem__ and __setitem__ by lists, which torch copies to the device."""

    def on_device(index: Any) -> Any:
        return torch.tensor(index, device=DEVICE) if isinstance(index, list) else index

    def access(self: DeviceTensor, index: Any, *value: Any) -> Any:
        index = tuple(map(on_device, index)) if isinstance(index, tuple) else on_device(index)
        return original(self, index, *value)

    return access


def _uncounted(original: Callable[..., Any]) -> Callable[..., Any]:
    """Module._apply, which moves weights."""

    def apply(self: torch.nn.Module, *args: Any, **options: Any) -> Any:
        MOVED_MODULES.append(self)
        try:
            return original(self, *args, **options)
        finally:
            MOVED_MODULES.pop()

    return apply


# A device context (`with torch.device("meta")`, in which transformers makes a model) collects the functions it acts on
# when one is first used: it must know torch's own, which the replacements call.
_device_constructors()
torch.nn.Module._apply = _uncounted(torch.nn.Module._apply)  # type: ignore[method-assign]
torch.tensor, torch.as_tensor = _created(torch.tensor), _created(torch.as_tensor)
DeviceTensor.__getitem__ = _indexed(Tensor.__getitem__)  # type: ignore[method-assign]
DeviceTensor.__setitem__ = _indexed(Tensor.__setitem__)  # type: ignore[method-assign]
torch.__future__.set_overwrite_module_params_on_conversion(True)


@contextmanager
def counted() -> Any:
    """The pretend device for one step; yields its counts, which start at 0."""
    COUNTS.clear()
    with PretendGpu():
        yield COUNTS
