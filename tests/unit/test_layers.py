"""Imports point down the layer list, whatever form they take, run in no circle, and are what packages say they are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
    "doctor",
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
# A process in another environment, which need have nothing of rlhf's dependencies and is no rank of the trainer.
SERVER = "rlhf.rollout.server"
SERVER_MAY_IMPORT = {"numpy", "torch", "vllm", "rollout_server"} | sys.stdlib_module_names


def level(module: str) -> int:
    """Number of a module's layer; 0 is the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return 0
    if parts[1] not in LAYERS:
        raise AssertionError(f"{module} belongs to no layer: name it in LAYERS")
    return LAYERS.index(parts[1]) + 1


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a source imports, inside functions too; `from a import b` is a.b."""
    inside = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
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


def imported_modules(source: str, module: str, known: Collection[str], *, is_package: bool) -> set[str]:
    """Modules of ours that a source imports from; `from rlhf import __version__` counts for none."""
    found = {resolved(name, known) for _, name in imports(source, module, is_package=is_package)}
    return found - {module, "rlhf", ""}


def resolved(name: str, known: Collection[str]) -> str:
    """The module that a dotted name is, or is in; empty for one of another package."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def circles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Groups of modules that import one another, however long the way round."""
    names = sorted(graph)
    number = {name: place for place, name in enumerate(names)}
    edges = [(number[name], number[other]) for name in names for other in graph[name]]
    rows, columns = zip(*edges, strict=True)
    matrix = coo_array(([True] * len(edges), (rows, columns)), shape=(len(names), len(names)))
    _, labels = connected_components(matrix, directed=True, connection="strong")
    groups = [[name for name in names if labels[number[name]] == label] for label in set(labels)]
    return sorted(group for group in groups if len(group) > 1)


@cache
def import_graph() -> dict[str, set[str]]:
    """The modules of ours that each module imports, anywhere in it."""
    found = modules()
    known = {name for name, _ in found}
    return {
        name: imported_modules(path.read_text(encoding="utf-8"), name, known, is_package=path.name == "__init__.py")
        for name, path in found
    }


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
        if in_server(module):
            if not name.startswith(SERVER) and name.partition(".")[0] not in SERVER_MAY_IMPORT:
                found.append(f"{module}:{line} imports {name}, which the engine's environment need not have")
        elif not module.startswith("rlhf.engine") and any(
            name == bad or name.startswith(f"{bad}.") for bad in ENGINE_ONLY
        ):
            found.append(f"{module}:{line} imports {name}: only engine does")
    return found


def in_server(module: str) -> bool:
    return module == SERVER or module.startswith(f"{SERVER}.")


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["rlhf", *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def packages() -> dict[str, str]:
    """Docstrings of the packages, by name without `rlhf.`."""
    found = [(name, path) for name, path in modules() if path.name == "__init__.py"]
    texts = {name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for name, path in found}
    return {name.removeprefix("rlhf").lstrip("."): text or "" for name, text in texts.items()}


@dataclass(frozen=True)
class Permission:
    """What the docstring of a package says that it may import: packages by name, and maybe the layers below them."""

    named: tuple[str, ...]
    below: bool

    @classmethod
    def of(cls, docstring: str) -> Permission:
        lines = [line for line in docstring.splitlines() if line.startswith("May import: ")]
        if len(lines) != 1 or not lines[0].endswith("."):
            raise AssertionError(f"one line `May import: a, b, and the layers below.` is expected in {docstring!r}")
        words = lines[0].removeprefix("May import: ").removesuffix(".").split(", ")
        below = words[-1] == "and the layers below"
        return cls((), False) if words == ["nothing of rlhf"] else cls(tuple(words[:-1] if below else words), below)

    def covers(self, package: str, other: str) -> bool:
        """Whether modules of `package` may import those of `other`; its own and those around it always."""
        if other == package or package.startswith(f"{other}."):
            return True
        if any(other == name or (other.startswith(f"{name}.") and layer(name) < layer(package)) for name in self.named):
            return True
        return self.below and layer(other) < max(layer(name) for name in self.named)


def layer(package: str) -> int:
    return level(f"rlhf.{package}")


def package_of(module: str, known: Collection[str]) -> str:
    """The package a module lies in, without `rlhf.`; a module right under `rlhf` stands for itself."""
    name = module.removeprefix("rlhf.")
    return name if name in known or "." not in name else name.rpartition(".")[0]


def test_no_modules_import_one_another():
    graph = import_graph()
    assert len(graph) > 200
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": "from rlhf.data import b", "b": "import rlhf.data.a"}, [["rlhf.data.a", "rlhf.data.b"]]),
        (
            {
                "a": "from .b import x",
                "b": "def f():\n    from .c import y",
                "c": "if TYPE_CHECKING:\n    from . import a",
            },
            [["rlhf.data.a", "rlhf.data.b", "rlhf.data.c"]],
        ),
        ({"a": "from .b import x\nfrom .c import y", "b": "from .c import y", "c": "import os"}, []),
        ({"a": "from . import b, a", "b": "from rlhf.data import Record"}, []),
    ],
)
def test_a_planted_circle_is_found(sources, expected):
    known = {"rlhf.data", *(f"rlhf.data.{name}" for name in sources)}
    graph = {
        f"rlhf.data.{name}": imported_modules(text, f"rlhf.data.{name}", known, is_package=False)
        for name, text in sources.items()
    }
    assert circles({"rlhf.data": set(), **graph}) == expected


def test_packages_say_what_they_may_import_in_the_order_of_the_layers():
    found = packages()
    assert len(found) > 30
    known = {package_of(name, found) for name, _ in modules()}
    for package, docstring in found.items():
        permission = Permission.of(docstring)
        unknown = [name for name in permission.named if name not in known]
        later = [name for name in permission.named if name in known and layer(name) > layer(package)]
        assert (package, unknown, later) == (package, [], [])


def test_packages_import_what_they_say():
    found = packages()
    permissions = {package: Permission.of(docstring) for package, docstring in found.items()}
    undeclared = sorted(
        f"{module} imports {other}"
        for module, others in import_graph().items()
        for other in others
        if (package := package_of(module, found)) in permissions
        and not permissions[package].covers(package, package_of(other, found))
    )
    assert undeclared == []


@pytest.mark.parametrize(
    ("docstring", "package", "covered", "refused"),
    [
        ("May import: nothing of rlhf.", "ops", ["ops"], ["errors", "config"]),
        ("May import: errors, ops.", "data", ["errors", "ops", "data"], ["config"]),
        ("May import: ops, and the layers below.", "data", ["errors", "config", "ops"], ["models"]),
        ("May import: curate, and the layers below.", "evaluate.geval", ["curate.judge", "web"], ["evaluate.reward"]),
        ("May import: curate.check, data.", "curate.stats", ["curate", "curate.check", "data"], ["curate.label"]),
    ],
)  # fmt: skip
def test_what_a_docstring_permits(docstring, package, covered, refused):
    permission = Permission.of(f"A package.\n\n{docstring}\n")
    assert [name for name in (*covered, *refused) if permission.covers(package, name)] == covered


@pytest.mark.parametrize("docstring", ["A package.", "May import: data", "May import: a.\nMay import: b.", ""])
def test_a_docstring_without_the_line_is_refused(docstring):
    with pytest.raises(AssertionError, match="one line"):
        Permission.of(docstring)


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


@pytest.mark.parametrize(
    "source", ["import pydantic", "from rlhf.errors import RlhfError", "from ..base import Rollouts", "import rlhf"]
)
def test_the_server_imports_its_own_modules_numpy_torch_and_vllm_alone(source):
    assert len(problems(source, "rlhf.rollout.server.loop")) == 1
    assert (
        problems("import torch.distributed\nimport mmap\nfrom .wire import Channel", "rlhf.rollout.server.loop") == []
    )


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
