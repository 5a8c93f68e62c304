"""The folder a report is written to."""

from __future__ import annotations

from pathlib import Path

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
