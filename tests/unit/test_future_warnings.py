"""A call of ours that a library is going to drop fails the tests; what libraries do among themselves does not."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch


def module(monkeypatch: pytest.MonkeyPatch, name: str, source: str, **names: Any) -> ModuleType:
    """A module of this name, which calls and warns as its source says."""
    made = ModuleType(name)
    made.__dict__.update(names)
    exec(source, made.__dict__)
    monkeypatch.setitem(sys.modules, name, made)
    return made


@pytest.fixture(params=[DeprecationWarning, FutureWarning])
def deprecated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A library's function that warns, with the stacklevel it is given."""
    inner = "import warnings\ndef inner(level): warnings.warn('goes', kind, stacklevel=level)"
    source = f"{inner}\ndef call(level): inner(level)"
    return module(monkeypatch, "some_library.api", source, kind=request.param).call


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_call_of_ours_is_an_error_whatever_frame_the_warning_names(monkeypatch, deprecated, level):
    ours = module(monkeypatch, "rlhf.planted", "def run(level): library(level)", library=deprecated)
    with pytest.raises((DeprecationWarning, FutureWarning), match="goes"):
        ours.run(level)


def test_a_warning_behind_a_torch_module_is_of_who_called_the_module(monkeypatch, deprecated):
    class Model(torch.nn.Module):
        forward = staticmethod(deprecated)

    ours = module(monkeypatch, "rlhf.planted", "def run(level): library(level)", library=Model())
    with pytest.raises((DeprecationWarning, FutureWarning), match="goes"):
        ours.run(2)


def test_a_library_that_calls_another_only_warns(monkeypatch, deprecated):
    between = module(monkeypatch, "other_library", "def call(level): library(level)", library=deprecated)
    ours = module(monkeypatch, "rlhf.planted", "def run(level): library(level)", library=between.call)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.run(1)
    assert [str(each.message) for each in caught] == ["goes"]


def test_a_warning_of_ours_is_an_error(monkeypatch):
    ours = module(monkeypatch, "rlhf.planted", "import warnings\ndef run(): warnings.warn('goes', FutureWarning)")
    with pytest.raises(FutureWarning, match="goes"):
        ours.run()


def test_a_warning_of_the_interpreter_at_a_line_of_ours_is_an_error(monkeypatch):
    """These come from C and name the line that is to blame: a filter of pyproject.toml makes them errors."""
    code = "import warnings\ndef run(): warnings.warn_explicit('goes', DeprecationWarning, 'f.py', 1, module=__name__)"
    ours = module(monkeypatch, "rlhf.planted", code)
    with pytest.raises(DeprecationWarning, match="goes"):
        ours.run()
