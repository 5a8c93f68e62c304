"""The folder a report is written to, and its files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_json, write_text
from rlhf.errors import ConfigError


def report_folder(out: Path) -> None:
    """Makes the folder. Raises ConfigError, before any work is done, when it is not writable."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writing").touch()
        (out / ".writing").unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=f"--out {out}", expected="a folder", fix="choose another"
        ) from None


def write_report(out: Path, name: str, report: Mapping[str, Any], *, page: str, summary: str) -> None:
    """Writes NAME.json and NAME.html into `out`, and prints the summary and the path of the page."""
    write_json(out / f"{name}.json", report)
    write_text(out / f"{name}.html", page)
    sys.stdout.write(f"{summary}\n{out / name}.html\n")
