"""Data that ships with the package, by names such as `demo:rankings_train`."""

from __future__ import annotations

from pathlib import Path

import rlhf
from rlhf.errors import DataError

PREFIX = "demo:"
FOLDER = Path(rlhf.__file__).parent / "demo" / "data"


def data_path(path: str) -> str:
    """The file of a `demo:` name; any other path is returned as it is.

    Raises: DataError for an unknown name.
    """
    if not path.startswith(PREFIX):
        return path
    file = FOLDER / f"{path.removeprefix(PREFIX)}.jsonl"
    if not file.is_file():
        names = ", ".join(f"{PREFIX}{item.stem}" for item in sorted(FOLDER.glob("*.jsonl")))
        raise DataError(f"no embedded data {path!r}", expected=f"one of {names}", fix="correct the name")
    return str(file)
