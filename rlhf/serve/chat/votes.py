"""People's votes on answers, one per line, in files that the stages read: rankings, and ratings of single answers."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rlhf.artifacts.files import flush_folder
from rlhf.data.formats import parse
from rlhf.data.row_values import messages_at
from rlhf.errors import ConfigError, DataError
from rlhf.serve.errors import ApiError, RequestBody

SOURCE = "chat-votes"
MAX_ROW_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30
MAX_TURNS = 1000
RANKS = {"left": (1, 2), "right": (2, 1), "tie": (1, 1), "both_bad": (1, 1)}

Text = Annotated[str, Field(min_length=1, max_length=200_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Finish = Literal["stop", "length"]


class Turn(RequestBody):
    """A turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Settings(RequestBody):
    """How the answers were sampled; `seed` is None where none was given."""

    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    seed: int | None = None


class Vote(RequestBody):
    """Two answers to one prompt, and which is better. `blind`: the models' names were hidden before the vote."""

    prompt: Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)]
    responses: Annotated[list[Text], Field(min_length=2, max_length=2)]
    models: Annotated[list[Name], Field(min_length=2, max_length=2)]
    verdict: Literal["left", "right", "tie", "both_bad"]
    blind: bool = False
    finish_reasons: Annotated[list[Finish], Field(min_length=2, max_length=2)] | None = None
    settings: Settings | None = None

    def row(self) -> dict[str, Any]:
        """A row of the format `ranking`. Raises ApiError for what stage 2 could not read."""
        sent = self.model_dump(exclude_none=True)
        row = {"prompt": sent.pop("prompt"), "responses": sent.pop("responses"), "ranks": list(RANKS[self.verdict])}
        try:
            parse(row, "ranking", SOURCE)
        except DataError as error:
            raise _refused(error) from None
        first, second = self.responses
        if first.strip() == second.strip() and row["ranks"] != [1, 1]:
            raise ApiError(400, "Invalid 'verdict': both answers are the same text.", param="verdict")
        return row | {"all_bad": self.verdict == "both_bad", "source": SOURCE} | sent


class Rating(RequestBody):
    """A conversation and a rating of its last answer."""

    messages: Annotated[list[Turn], Field(min_length=2, max_length=MAX_TURNS)]
    rating: Literal["up", "down"]
    model: Name
    finish_reason: Finish | None = None
    settings: Settings | None = None

    def row(self) -> dict[str, Any]:
        """A row of the format `messages`. Raises ApiError for what no stage could read."""
        sent = self.model_dump(exclude_none=True)
        try:
            messages_at(sent, "messages", "assistant")
        except DataError as error:
            raise _refused(error) from None
        return sent | {"source": SOURCE}


def _refused(error: DataError) -> ApiError:
    param = error.where.removeprefix("key ").strip("`") or None
    return ApiError(400, f"Invalid '{param}': {error.problem}.", param=param)


class JsonLinesFile:
    """A file that only grows, by whole lines that are on disk when `append` returns.

    Raises: ConfigError when it cannot be written.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path, self._max_bytes = path, max_bytes
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open().close()
            flush_folder(path.parent)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=f"--votes {path}") from None

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a whole line or none. Raises: ApiError 413 for a row that is too long, 507 for a full disk or file."""
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        if len(line) > MAX_ROW_BYTES:
            raise ApiError(413, f"The row is larger than {MAX_ROW_BYTES:,} bytes.", code="request_too_large")
        try:
            with self._lock:
                self._write(line)
        except OSError as error:
            message = f"The row could not be saved: {error.strerror}."
            raise ApiError(507, message, type="server_error", code="not_saved") from None

    def _open(self) -> FileIO:
        # 0600: conversations are private.
        return open(self.path, "a+b", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600))

    def _write(self, line: bytes) -> None:
        with self._open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another service may write to the same file
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line  # half a line left by a crash must not spoil this one
            if size + len(line) > self._max_bytes:
                raise OSError(0, "the file is full")
            try:
                if os.write(file.fileno(), line) < len(line):
                    raise OSError(0, "the disk is full")
                os.fsync(file)
            except OSError:
                file.truncate(size)
                raise


class VoteFiles:
    """FILE.jsonl for rankings, and FILE.ratings.jsonl beside it for ratings.

    Raises: ConfigError for a name that the stages could not read, or a file that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".jsonl":
            raise ConfigError(f"{path} cannot hold rows", where="--votes", expected="a name that ends in .jsonl")
        self._rankings, self._ratings = JsonLinesFile(path), JsonLinesFile(path.with_suffix(".ratings.jsonl"))

    def add(self, sent: Vote | Rating, voter: str | None) -> None:
        """Saves one. `voter` is the id of the key that sent it. Raises ApiError."""
        extra: dict[str, Any] = {"voted_at": datetime.now(UTC).isoformat(timespec="seconds")}
        lines = self._rankings if isinstance(sent, Vote) else self._ratings
        lines.append(sent.row() | extra | ({} if voter is None else {"voter": voter}))
