"""Makes an error of each DeprecationWarning and FutureWarning that a call of this project's own code causes.

A filter by module sees only the frame that the warning names by its stacklevel, and that is often one of a library: a
deprecated argument of a transformers model is reported at torch's `Module.__call__`. So the stack is walked here, from
the library that warns through what only passes calls on, to the module that called it. What libraries do among
themselves stays a warning.
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import Any

COMING = (DeprecationWarning, FutureWarning)
OURS = "rlhf"
PASSED_ON = ("torch.nn.modules.module", "torch.utils._contextlib", "contextlib", "functools", "typing_extensions")
_warn = warnings.warn


def module_of(frame: FrameType | None) -> str:
    return str(frame.f_globals.get("__name__", "")) if frame is not None else ""


def caller(frame: FrameType | None) -> str:
    """The module that called the package of `frame`: the first above it outside that package and of PASSED_ON."""
    while frame is not None and module_of(frame) in PASSED_ON:
        frame = frame.f_back
    warning = module_of(frame).partition(".")[0]
    if warning == OURS:
        return module_of(frame)
    while frame is not None and (module_of(frame).partition(".")[0] == warning or module_of(frame) in PASSED_ON):
        frame = frame.f_back
    return module_of(frame)


def warn(message: Any, category: Any = None, stacklevel: int = 1, *arguments: Any, **options: Any) -> None:
    """`warnings.warn`, which raises what this project's code is to blame for."""
    kind = type(message) if isinstance(message, Warning) else category or UserWarning
    if issubclass(kind, COMING) and caller(sys._getframe(1)).partition(".")[0] == OURS:
        raise kind(str(message))
    _warn(message, category, stacklevel + 1, *arguments, **options)


def install() -> None:
    """From here on; packages that import `warn` by name must be imported later."""
    warnings.warn = warn
