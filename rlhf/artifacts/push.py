"""`rlhf push`: a finished run, or a folder that `rlhf export` wrote, to a repository of the Hugging Face hub.

A run is exported first, so that what is pushed has been loaded by a fresh process and has its model card. All that can
be refused is refused before: the name, the user, the folder. Afterwards the hub's list of files is compared with the
folder's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import read_json
from rlhf.errors import ArtifactError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
CARD, MANIFEST = "README.md", "manifest.json"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is on the hub now: the address of the commit, and how many files and bytes of the folder it holds."""

    address: str
    files: int
    size: int

    def summary(self) -> str:
        """One line for the terminal."""
        return f"{self.address}: {self.files} files, {self.size / 1e6:,.1f} MB, as the hub lists them"


def is_exported(folder: Path) -> bool:
    """Whether `rlhf export` wrote the folder: its manifest says so, and it has a model card."""
    manifest = folder / MANIFEST
    return (folder / CARD).is_file() and manifest.is_file() and "export" in read_json(manifest)


def check_push(repo: str, *, endpoint: str | None = None, token: str | None = None) -> str:
    """The user of the hub's token. Nothing is written.

    Raises: ArtifactError for a name that is none, without a connection, and without a valid token.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not _NAME.fullmatch(repo):
        raise ArtifactError(f"{repo!r} is no repository of the hub", where="--repo", expected="org/name")
    if constants.is_offline_mode():
        raise ArtifactError("the hub may not be asked: HF_HUB_OFFLINE is set", where="--repo", fix="unset it")
    with _told("--repo", repo):
        try:
            return str(HfApi(endpoint=endpoint, token=token).whoami()["name"])
        except LocalTokenNotFoundError as error:
            raise ArtifactError("nobody is logged in to the hub", where="--repo", fix="hf auth login") from error
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code == 401:
                raise ArtifactError("the hub refuses the token", where="--repo", fix="hf auth login") from error
            raise


def push(
    folder: Path,
    repo: str,
    *,
    public: bool,
    revision: str = "main",
    endpoint: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Uploads an exported folder in one commit.

    Args:
        folder: what `rlhf export` wrote.
        repo: org/name; made if it does not exist.
        public: whether a repository that is made can be seen by everybody; an existing one stays as it is.
        revision: branch, made from main if it does not exist.
        endpoint: the hub (default: that of huggingface_hub).
        token: of the user (default: the one that is logged in).

    Raises: ArtifactError for a folder that is no export, for what the hub refuses, and where the hub then lists other
        files than the folder has.
    """
    from huggingface_hub import HfApi

    if not is_exported(folder):
        raise ArtifactError(
            f"{folder} is neither a finished run nor an exported folder",
            where="RUN",
            expected=f"{CARD}, and {MANIFEST} of `rlhf export`",
            fix=f"rlhf export --run RUN --out {folder}",
        )
    api: Any = HfApi(endpoint=endpoint, token=token)
    with _told("--repo", repo):
        api.create_repo(repo, private=not public, exist_ok=True)
        if revision != "main":
            api.create_branch(repo, branch=revision, exist_ok=True)
        message = f"Model of {Path(read_json(folder / MANIFEST)['export']['run']).name}"
        commit = api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=message)
        listed = api.model_info(repo, revision=revision, files_metadata=True).siblings
    return _compared(folder, {each.rfilename: each.size for each in listed}, str(commit.commit_url))


def _compared(folder: Path, listed: dict[str, int | None], address: str) -> Pushed:
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    wrong = [name for name, size in sizes.items() if listed.get(name) != size]
    if wrong:
        raise ArtifactError(
            f"the hub lists other files than were pushed: {', '.join(wrong[:5])}",
            where=address,
            fix="push again",
        )
    return Pushed(address, len(sizes), sum(sizes.values()))


@contextmanager
def _told(where: str, repo: str) -> Iterator[None]:
    """Turns what the hub refuses, and a network that is not there, into an error of one line."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        fix = f"log in as somebody who may write to {repo}: hf auth login" if status in (401, 403) else "try again"
        said = error.server_message or str(error).splitlines()[0]
        raise ArtifactError(f"the hub refuses {repo}: {said} ({status})", where=where, fix=fix) from error
    except Exception as error:
        # huggingface_hub changes its client between releases (requests, httpx, httpx2) and lets its errors through
        client = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and client not in ("httpx", "httpx2", "requests"):
            raise
        raise ArtifactError(f"the hub cannot be reached: {error}", where=where, fix="try again") from error
