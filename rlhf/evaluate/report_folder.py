"""The folder a report is written to, and its files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_json, write_text
from rlhf.errors import ConfigError
from rlhf.html.templates import render


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


def write_report(out: Path, name: str, report: Mapping[str, Any], package: str, **more: Any) -> None:
    """Writes NAME.json and NAME.html into `out`, and prints a summary and the path of the page.

    Page and summary are the templates `page.html.j2` and `summary.txt.j2` of a package of `evaluate`, filled with the
    report and with `more`.
    """
    write_json(out / f"{name}.json", report)
    write_text(out / f"{name}.html", render(f"evaluate/{package}/page.html.j2", report=report, **more))
    summary = render(f"evaluate/{package}/summary.txt.j2", report=report, **more)
    sys.stdout.write(f"{summary}{out / name}.html\n")
