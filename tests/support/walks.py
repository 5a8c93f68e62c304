"""Runs the commands of a documentation page as they stand, in a folder that looks like a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.launcher import ENVIRONMENT, REPOSITORY, free_port

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = ("bash", "sh")
_LINKED = ("configs", "scripts", "tests", "rlhf")


def section(page: str, start: str, end: str) -> str:
    """The part of a page from the heading `start` up to the heading `end`."""
    text = "\n" + (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return text[text.index(f"\n{start}\n") : text.index(f"\n{end}\n")]


def walk_script(text: str, replaced: Mapping[str, str]) -> str:
    """The shell and Python blocks of a text as one shell script that stops at the first failure.

    Left out are blocks with an id that the reader fills in, such as ft-....
    """
    return "\n".join(["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *_steps(text, replaced)])


def _steps(text: str, replaced: Mapping[str, str]) -> Iterator[str]:
    for language, content in _FENCE.findall(text):
        shown = content
        for old, new in replaced.items():
            shown = shown.replace(old, new)
        if "-..." in shown or ":..." in shown:
            continue  # an id that the reader fills in
        if language in _SHELL:
            yield shown
        elif language == "python":
            yield f"python - <<'PYTHON_BLOCK'\n{shown}PYTHON_BLOCK"


def run_walk(text: str, folder: Path, replaced: Mapping[str, str], timeout: float = 540) -> str:
    """Runs the blocks of a text in `folder`; returns what they printed.

    Raises: AssertionError with the end of the output, for a command that fails.
    """
    for name in _LINKED:
        (folder / name).symlink_to(REPOSITORY / name)
    binaries = folder / "bin"
    binaries.mkdir()
    launcher = f"-m deepspeed.launcher.runner --master_port {free_port()}"
    for name, words in (("rlhf", "-m rlhf"), ("deepspeed", launcher), ("python", "")):
        command = f'exec "{sys.executable}" {words} "$@"'
        (binaries / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (binaries / name).chmod(0o755)
    paths = {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    environment = {**os.environ, **ENVIRONMENT, **paths}
    script = walk_script(text, replaced)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout
