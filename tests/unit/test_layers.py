"""Imports point down the layer list of DESIGN.md, whatever form they take."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rlhf

PACKAGE = Path(rlhf.__file__).parent
# rlhf/__init__.py is below all. Evaluation is used by training, which picks its checkpoints with it.
LAYERS = (
    "errors",
    "config",
    "ops",
    "data",
    "html",
    "models",
    "engine",
    "artifacts",
    "rollout",
    "plan",
    "web",
    "curate",
    "evaluate",
    "train",
    "runs",
    "serve",
    "demo",
    "cli",
    "__main__",
)
ENGINE_ONLY = ("deepspeed", "torch.distributed")


def level(module: str) -> int:
    """Number of a module's layer; 0 is the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return 0
    if parts[1] not in LAYERS:
        raise AssertionError(f"{module} belongs to no layer: name it in LAYERS")
    return LAYERS.index(parts[1]) + 1


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a source, inside functions too; names taken from a package included."""
    inside = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
            yield node.lineno, origin
            if origin in ("rlhf", "torch"):  # `from rlhf import train` names a module
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _imports_by_name(node.func):
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def _imports_by_name(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def is_module(name: str) -> bool:
    """Whether rlhf.x names a layer; `from rlhf import __version__` names something else."""
    parts = name.split(".")
    return len(parts) > 1 and (
        parts[1] in LAYERS or (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
    )


def problems(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with a module's imports."""
    found = []
    for line, name in imports(source, module, is_package=is_package):
        ours = name == "rlhf" or name.startswith("rlhf.")
        if ours and is_module(name):
            if level(name) > level(module):
                found.append(f"{module}:{line} imports {name}, a later layer")
            if module.startswith("rlhf.ops") and not name.startswith("rlhf.ops"):
                found.append(f"{module}:{line} imports {name}: ops imports nothing of ours")
        if not module.startswith("rlhf.engine") and any(
            name == bad or name.startswith(f"{bad}.") for bad in ENGINE_ONLY
        ):
            found.append(f"{module}:{line} imports {name}: only engine does")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["rlhf", *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def test_every_import_points_to_an_earlier_layer():
    checked = modules()
    assert len(checked) > 40
    assert {name.split(".")[1] for name, _ in checked if "." in name} <= set(LAYERS)
    found = [
        problem
        for name, path in checked
        for problem in problems(path.read_text(encoding="utf-8"), name, is_package=path.name == "__init__.py")
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import rlhf.train.sft",
        "import os, rlhf.train.sft as sft",
        "from rlhf.train import sft",
        "from rlhf.train.sft import train",
        "from rlhf import train",
        "from rlhf import errors, train as later",
        "from .. import train",
        "from ..train import sft",
        "from ..train.sft import train",
        "def build():\n    from rlhf.train.sft import train",
        "class A:\n    def f(self):\n        import rlhf.train",
        "if TYPE_CHECKING:\n    from rlhf.train.sft import Progress",
        "try:\n    import rlhf.train\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('rlhf.train.sft')",
        "from importlib import import_module\nf = import_module('rlhf.train')",
        "__import__('rlhf.train')",
        "import deepspeed",
        "import torch.distributed as dist",
        "from torch import distributed",
        "from torch.distributed import all_reduce",
        "from deepspeed.ops.adam import DeepSpeedCPUAdam",
    ],
)
def test_a_bad_import_is_found(source):
    assert len(problems(source, "rlhf.data.encode")) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "import rlhf",
        "from rlhf import __version__",
        "from rlhf.errors import DataError",
        "from rlhf.data.records import Message",
        "from . import records",
        "from .records import Message",
        "from ..errors import DataError",
        "from ..ops.segments import Segment",
        "import torch\nfrom torch import nn",
        "import deepspeedometer",
        "x = 'import rlhf.train'  # import rlhf.train",
    ],
)
def test_a_good_import_passes(source):
    assert problems(source, "rlhf.data.encode") == []


def test_ops_imports_nothing_of_ours():
    assert problems("from rlhf.errors import RlhfError", "rlhf.ops.losses")
    assert problems("from ..config import sections", "rlhf.ops.losses")
    assert problems("from rlhf.ops.masking import masked_sum", "rlhf.ops.losses") == []


def test_a_packages_own_relative_imports_are_resolved():
    assert problems("from .train import sft", "rlhf", is_package=True)
    assert problems("from ..train import sft", "rlhf.data", is_package=True)
    assert problems("from .records import Message", "rlhf.data", is_package=True) == []
    assert problems("import deepspeed", "rlhf.engine.ranks") == []


def test_a_module_of_no_layer_is_an_error():
    with pytest.raises(AssertionError, match="belongs to no layer"):
        level("rlhf.utils.things")
