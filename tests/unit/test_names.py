"""One word, one meaning: no two classes of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import rlhf

PACKAGE = Path(rlhf.__file__).parent


def classes(source: str) -> list[str]:
    """Names of the classes that a module defines for others."""
    names = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]


def shared_names(sources: dict[str, str]) -> dict[str, list[str]]:
    """Class names that several modules define, with the modules."""
    found = defaultdict(list)
    for module, source in sources.items():
        for name in classes(source):
            found[name].append(module)
    return {name: modules for name, modules in found.items() if len(modules) > 1}


def test_no_two_classes_share_a_name():
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert len(sources) > 200
    assert shared_names(sources) == {}


def test_a_name_with_two_meanings_is_found():
    sources = {"a.py": "class Guard: ...", "b.py": "class Guard: ...\nclass _Own: ...", "c.py": "class _Own: ..."}
    assert shared_names(sources) == {"Guard": ["a.py", "b.py"]}
