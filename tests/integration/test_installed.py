"""A wheel, installed apart from the checkout, has what a run needs: scripts, recipes, `rlhf` and `python -m rlhf`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.launcher import ENVIRONMENT, REPOSITORY

pytestmark = pytest.mark.full

SOURCES = ("LICENSE", "README.md", "pyproject.toml", "configs", "scripts", "rlhf")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, source / name)
    build = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out)]
    _run([sys.executable, "-m", "pip", *build, str(source)], source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds its dependencies among the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    executable = folder / "bin" / "python"
    install = ["--python", str(executable), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    _run([sys.executable, "-m", "pip", *install], folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executable


def _run(command: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # `ninja` is beside the Python whose packages are used.
    environment |= {**ENVIRONMENT, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_all_that_is_not_a_module(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"rlhf/{path.relative_to(REPOSITORY / 'rlhf')}" for path in (REPOSITORY / "rlhf").rglob("*.*")}
    shipped = {f"rlhf/recipes/{path.relative_to(REPOSITORY / 'configs')}" for path in REPOSITORY.glob("configs/*/*")}
    scripts = {f"rlhf/scripts/{path.relative_to(REPOSITORY / 'scripts')}" for path in REPOSITORY.glob("scripts/**/*.*")}
    wanted = {name for name in modules | shipped | scripts if "__pycache__" not in name}
    assert len(shipped) >= 15
    assert len(scripts) >= 5
    assert wanted - names == set()
    assert not any(name.startswith(("tests/", "configs/", "scripts/")) for name in names)


def test_commands_away_from_the_checkout(python: Path, tmp_path: Path) -> None:
    where = _run([str(python), "-c", "import rlhf; print(rlhf.__file__)"], tmp_path)
    assert where.startswith(str(python.parents[1]))
    assert "--max-steps" in _run([str(python.with_name("rlhf")), "quickstart", "--help"], tmp_path)
    plan = ["plan", "recipe:kullm-5.8b/sft", "--gpus", "1", "--gpu-memory", "80"]
    assert "5.8" in _run([str(python), "-m", "rlhf", *plan], tmp_path)
    recipes = _run([str(python), "-m", "rlhf", "config", "recipes"], tmp_path).splitlines()
    assert len(recipes) >= 15
    assert all(Path(line.split()[1]).is_relative_to(python.parents[1]) for line in recipes)


def test_a_step_of_a_stage(python: Path, tiny_neox: Path, tmp_path: Path) -> None:
    words = ["--config", "recipe:demo/sft", f"model.path={tiny_neox}", "run.dir=sft", "run.max_steps=1"]
    words += ["data.max_length=200", "data.eval=[]", "log.samples_every_steps=null"]
    _run([str(python), "-m", "rlhf", "train", "--ranks", "1", "sft", *words], tmp_path)
    assert '"status": "finished"' in (tmp_path / "sft" / "state.json").read_text(encoding="utf-8")
    assert (tmp_path / "sft" / "model" / "model.safetensors").is_file()
