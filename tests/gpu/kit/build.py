"""Builds one folder to carry to a GPU machine without a network: wheels, this source tree, and run.sh.

python tests/gpu/kit/build.py [--out build/gpu-kit] [--python-version 3.12]

The machine brings Python, torch with CUDA, transformers, accelerate, peft, ninja and pytest; the wheels are what else
this project needs to train. DeepSpeed is built here without ops, which it compiles where they are first used.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIMIT_BYTES = 60 * 2**20
# At the versions that are installed here; what else these need is on the machine.
INSTALLED = ("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions")
INSTALLED += ("hjson", "datasets", "dill", "multiprocess")
GPU_ONLY = ("liger-kernel>=0.6.2",)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> None:
    parser = argparse.ArgumentParser(description="build the folder that tests this project on a GPU machine")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit", help="default: build/gpu-kit")
    parser.add_argument("--python-version", default="3.12", help="of the GPU machine (default: %(default)s)")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    wheels = options.out / "wheels"
    wheels.mkdir(parents=True)
    build_deepspeed(wheels)
    download(wheels, options.python_version)
    copy_source(options.out / "source")
    shutil.copy2(Path(__file__).with_name("run.sh"), options.out / "run.sh")
    describe(options.out, options.python_version)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    if size > LIMIT_BYTES:
        sys.exit(f"{options.out} takes {size / 2**20:.1f} MiB, more than {LIMIT_BYTES / 2**20:.0f} MiB")
    print(f"{options.out}: {size / 2**20:.1f} MiB; on the GPU machine: bash {shown(options.out)}/run.sh")


def build_deepspeed(wheels: Path) -> None:
    """The version that is installed here. With this environment's torch, so that none is downloaded."""
    wanted = f"deepspeed=={version('deepspeed')}"
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), wanted, DS_BUILD_OPS="0")


def download(wheels: Path, python_version: str) -> None:
    """Wheels for that machine's Python."""
    target = ["--only-binary=:all:", "--python-version", python_version, "--implementation", "cp"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    wanted = [f"{name}=={version(name)}" for name in INSTALLED]
    pip("download", "--no-deps", *target, "--dest", str(wheels), *wanted, *GPU_ONLY)


def pip(*words: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words, "--quiet"], env=os.environ | environment, check=True)


def copy_source(out: Path) -> None:
    """Every file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # one that was deleted is still listed
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, out / name)


def describe(out: Path, python_version: str) -> None:
    """contents.json: what the figures of a run belong to."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    content = {
        "commit": commit.stdout.strip(),
        "changed_since": bool(changed.stdout.strip()),
        "python": python_version,
        "wheels": sorted(file.name for file in (out / "wheels").iterdir()),
    }
    (out / "contents.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
