"""Data sets of the Hugging Face hub by their id: the folder of the cache that holds the snapshot."""

from __future__ import annotations

import re
from pathlib import Path

from rlhf.data.byte_streams import TEXT_SUFFIXES, inner_suffix
from rlhf.data.tables import TABLE_SUFFIXES
from rlhf.errors import DataError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(path: str) -> bool:
    """Whether a path that does not exist can be org/name on the hub.

    data/rows.jsonl is a file that is not there, and so is data/rows where there is a folder data.
    """
    if inner_suffix(Path(path)) in (*TEXT_SUFFIXES, *TABLE_SUFFIXES):
        return False
    return _ID.fullmatch(path) is not None and not Path(path.partition("/")[0]).exists()


def snapshot_of(name: str) -> Path:
    """The folder with the files of a data set of the hub, which is downloaded unless the cache holds it.

    Raises: DataError where it is not in the cache and cannot be had, with the cache and the command that fills it.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    command = f"hf download {name} --repo-type dataset"
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except LocalEntryNotFoundError:
        offline = constants.HF_HUB_OFFLINE
        why = "while HF_HUB_OFFLINE is set" if offline else "and the hub cannot be reached"
        raise DataError(
            f"{name} is no file or folder here, and the cache {constants.HF_HUB_CACHE} does not hold it {why}",
            where=name,
            fix=f"where the hub can be reached: {'HF_HUB_OFFLINE=0 ' if offline else ''}{command}",
        ) from None
    except RepositoryNotFoundError:
        raise DataError(
            f"{name} is no file or folder here, and the hub has no data set of that name for this user",
            where=name,
            fix="correct the name, or log in: hf auth login",
        ) from None
    except HfHubHTTPError as error:
        raise DataError(f"the hub refuses {name}: {str(error).splitlines()[0]}", where=name, fix=command) from None
