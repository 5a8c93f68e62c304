"""Data that ships with the package, by names such as `demo:rankings_train`."""

from __future__ import annotations

from pathlib import Path

import rlhf
from rlhf.data.readers import locate
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


def require_file(path: str, where: str) -> None:
    """Raises DataError, with `where`, for a data file that is missing or empty."""
    try:
        found = locate(data_path(path)).path
    except DataError as error:
        place = f"{where}  {error.where}".rstrip()
        raise DataError(error.problem, where=place, expected=error.expected, fix=error.fix) from None
    if found.is_file() and not found.stat().st_size:
        raise DataError("the file is empty", where=f"{where}  {path}", expected="at least one row")
