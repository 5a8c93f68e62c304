"""Which versions `make test-versions` installs, and that the constraint files stand for what pyproject.toml allows."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
OFFERED = ["2.15.0", "2.14.1", "2.13.0+cpu", "2.13.0", "2.12.0+cpu", "2.10.0+cpu", "2.9.1+cpu"]


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_versions", ROOT / "tests" / "versions" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned(name: str) -> dict[str, str]:
    """Name and version of each line of a constraint file."""
    lines = (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines()
    return {name.lower(): version for name, sign, version in (line.partition("==") for line in lines) if sign}


def test_torch_is_the_first_or_the_last_cpu_build_not_below_the_floor(versions):
    assert versions.choose_torch(OFFERED, "2.11", oldest=True) == "2.12.0+cpu"
    assert versions.choose_torch(OFFERED, "2.9.1", oldest=True) == "2.9.1+cpu"
    assert versions.choose_torch(OFFERED, "2.9.1", oldest=False) == "2.13.0+cpu"
    with pytest.raises(SystemExit, match=r"no CPU build of torch from 2\.14 on"):
        versions.choose_torch(OFFERED, "2.14", oldest=True)


def test_the_oldest_set_is_every_floor_at_once(versions):
    floors = versions.requirements()
    assert floors["torch"] is not None
    assert "rlhf-ko" not in floors
    assert [name for name, floor in floors.items() if floor is None] == []
    pins = versions.pins("oldest", "2.13.0+cpu")
    assert pins[0] == "torch==2.13.0+cpu"
    assert len(pins) == len(floors)
    assert f"scipy=={floors['scipy']}" in pins
    assert versions.pins("newest", "2.13.0+cpu") == ["torch==2.13.0+cpu"]


def test_a_requirement_that_cannot_be_read_or_has_two_floors_is_refused(versions, tmp_path):
    project = tmp_path / "pyproject.toml"
    extras = "".join(f"{name} = []\n" for name in versions.EXTRAS if name != "dev")
    head = '[project]\nname = "x"\ndependencies = ["a>=1"]\n[project.optional-dependencies]\n'
    project.write_text(f'{head}{extras}dev = ["a>=2"]\n')
    with pytest.raises(ValueError, match="a has the floors 1 and 2"):
        versions.requirements(project)


@pytest.mark.parametrize(("name", "count"), [("cpu.txt", 30), ("cuda.txt", 1)])
def test_what_is_pinned_is_allowed(name, count):
    allowed = {}
    for text in re.findall(r'"([A-Za-z][^"\[]*>=[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        requirement = Requirement(text)
        allowed[requirement.name.lower()] = requirement.specifier
    checked = {each for each in pinned(name) if each in allowed}
    assert {each for each in checked if not allowed[each].contains(pinned(name)[each])} == set()
    assert len(checked) >= count


def test_cuda_packages_are_pinned_where_cuda_is_and_nowhere_else():
    cuda = [name for name in pinned("cpu.txt") if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert cuda == []
    assert {"cuda-toolkit", "nvidia-nccl-cu13", "triton"} <= set(pinned("cuda.txt"))
    assert "-c cpu.txt" in (ROOT / "constraints" / "cuda.txt").read_text(encoding="utf-8").splitlines()
    assert pinned("vllm.txt")["torch"] == pinned("cpu.txt")["torch"]
