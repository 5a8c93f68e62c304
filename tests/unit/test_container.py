"""The container's files agree with each other, and its smoke build hands over this machine's package settings."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import rlhf

ROOT = Path(rlhf.__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def smoke() -> ModuleType:
    spec = importlib.util.spec_from_file_location("container_build", ROOT / "tests" / "container" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_copied_exists_and_is_not_ignored():
    sources = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert len(sources) >= 7
    for name in sources:
        assert (ROOT / name).exists(), name
        assert f"!{name.split('/')[0]}" in ignored, name


def test_cuda_is_that_of_the_pinned_torch():
    pins = (ROOT / "constraints" / "cuda.txt").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE=nvidia/cuda:([\d.]+)-runtime-", DOCKERFILE, re.MULTILINE)
    (toolkit,) = re.findall(r"^cuda-toolkit==(\d+\.\d+\.\d+)", pins, re.MULTILINE)
    assert base == toolkit


def test_compose_builds_the_dockerfile_with_arguments_it_has():
    service = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]["train"]
    build = service["build"]
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).resolve() == ROOT / "docker" / "Dockerfile"
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    workdir = re.search(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)[1]
    bound = {volume["target"] for volume in service["volumes"] if isinstance(volume, dict)}
    assert bound == {f"{workdir}/runs", f"{workdir}/data"}


def test_pip_settings_are_those_of_packages_and_the_environment_wins(smoke):
    listed = "\n".join(
        [
            ":env:.find-links='/wheels'",
            "global.extra-index-url='file:///a/simple\\nfile:///b/simple'",
            "global.find-links='/other'",
            "install.user='true'",
        ]
    )
    assert smoke.parse_pip_settings(listed) == {
        "find-links": "/wheels",
        "extra-index-url": "file:///a/simple file:///b/simple",
    }


def test_local_folders_hold_an_index_and_the_files_beside_it(smoke, tmp_path):
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    settings = {
        "index-url": "https://packages.invalid/simple",
        "extra-index-url": f"file://{tmp_path}/index/simple file://{tmp_path}/absent/simple",
        "find-links": f"{tmp_path}/wheels",
        "cert": f"{tmp_path}/wheels",
    }
    assert smoke.local_folders(settings) == [tmp_path / "index", tmp_path / "wheels"]
