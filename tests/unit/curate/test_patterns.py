"""Regular expressions in YAML: references, alternatives, and the files of the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import rlhf
from rlhf.curate.patterns import read_patterns

PACKAGE = Path(rlhf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.yaml"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / f"package_of_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_references_and_alternatives(package):
    (package / "a.yaml").write_text(
        "year: '\\d{4}'\nday:\n- '{year}년'\n- 'in {year}'\n- '{given}'\n", encoding="utf-8"
    )
    patterns = read_patterns(package.name, "a.yaml", given="[ab]")
    assert {name: pattern.pattern for name, pattern in patterns.items()} == {
        "year": r"\d{4}",
        "day": r"\d{4}년|in \d{4}|[ab]",
    }


def test_an_unknown_reference_is_an_error(package):
    (package / "a.yaml").write_text("day: '{year}'\n", encoding="utf-8")
    with pytest.raises(KeyError, match="year"):
        read_patterns(package.name, "a.yaml")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_data_file_is_installed_with_its_package(file):
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = project["tool"]["setuptools"]["package-data"]
    package = next(folder for folder in file.parents if (folder / "__init__.py").exists())
    name = ".".join(package.relative_to(PACKAGE.parent).parts)
    patterns = [*shipped["*"], *shipped.get(name, ())]
    assert any(file in package.glob(pattern) for pattern in patterns)
