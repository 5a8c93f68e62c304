"""Uploaded files on disk, named by ids that are created here, and checked as `rlhf data check` does."""

from __future__ import annotations

import os
import re
import shutil
import time
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from rlhf.artifacts.files import flush_folder
from rlhf.curate.check.command import CheckOptions, check_file
from rlhf.errors import RlhfError
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.store import JobStore, StoredFile, new_id

PURPOSES = ("fine-tune",)
ENDINGS = (".jsonl", ".json", ".csv")  # they decide how rows are read; any other name is read as .jsonl
MAX_NAME_CHARACTERS = 200
MAX_DETAILS = 20  # problems named in a file's status


class FileStore:
    """The folder of files, whose entries are in the store."""

    def __init__(self, folder: Path, store: JobStore) -> None:
        self.folder, self.store = folder, store
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, file: StoredFile) -> Path:
        """The path of a file: its id, and one of a few endings."""
        ending = Path(file.filename).suffix.lower()
        return self.folder / f"{file.id}{ending if ending in ENDINGS else ENDINGS[0]}"

    def add(self, content: BinaryIO, filename: str, *, owner: str, purpose: str) -> StoredFile:
        """Stores and checks a file; problems of its rows are in its report, not raised.

        Raises: ApiError for an unknown purpose, or an empty file.
        """
        if purpose not in PURPOSES:
            message = f"{purpose!r} is not a purpose of this service; it takes {', '.join(PURPOSES)}."
            raise ApiError(400, message, param="purpose")
        identifier = new_id("file")
        beside = self.folder / f".{identifier}.writing"
        try:
            with beside.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            size = beside.stat().st_size
            if size == 0:
                raise ApiError(400, "The file is empty.", param="file")
            stored = StoredFile(identifier, owner, _shown_name(filename), purpose, size, int(time.time()))
            beside.replace(self.path(stored))
        finally:
            beside.unlink(missing_ok=True)
        flush_folder(self.folder)
        self.store.add(stored)
        return self.check(stored)

    def keep(self, text: str, filename: str, *, owner: str, purpose: str) -> StoredFile:
        """Stores a file that a job wrote."""
        content = text.encode()
        stored = StoredFile(new_id("file"), owner, filename, purpose, len(content), int(time.time()), "processed")
        self.path(stored).write_bytes(content)
        self.store.add(stored)
        return stored

    def check(self, file: StoredFile) -> StoredFile:
        """The file with the report of `rlhf data check`."""
        report = check_file(CheckOptions(str(self.path(file))))
        found = asdict(report) | {"path": file.filename}
        self.store.set_checked(file.id, "processed" if report.status == 0 else "error", found)
        return self.store.first(StoredFile, id=file.id) or file

    def recover(self) -> None:
        """Checks the files whose check a killed server did not finish; removes incomplete uploads."""
        for leftover in self.folder.glob(".*.writing"):
            leftover.unlink()
        for file in self.store.find(StoredFile, status="uploaded"):
            try:
                self.check(file)
            except (RlhfError, OSError) as error:
                self.store.set_checked(file.id, "error", {"findings": [], "problem": str(error)})

    def remove(self, file: StoredFile) -> None:
        """Deletes a file; ApiError while a job needs it."""
        if self.store.uses_file(file.id):
            raise ApiError(409, f"A job that has not ended reads {file.id}. Cancel the job first.", code="file_in_use")
        self.store.remove_file(file.id)
        self.path(file).unlink(missing_ok=True)


def problems(file: StoredFile) -> list[str]:
    """Why a file cannot be trained on, by line: "line 3: invalid JSON"; at most `MAX_DETAILS`."""
    if file.status != "error":
        return []
    lines = [file.report["problem"]] if "problem" in file.report else []
    for finding in file.report["findings"]:
        if finding["severity"] != "error":
            continue
        fix = f" ({finding['fix']})" if finding["fix"] else ""
        places = finding["places"] or [{"line": 0, "detail": ""}]
        for place in places:
            where = f"line {place['line']}: " if place["line"] else ""
            lines.append(": ".join(filter(None, (where + finding["title"], place["detail"]))) + fix)
        if (more := finding["count"] - len(places)) > 0:
            lines.append(f"{finding['title']}: {more} more lines")
    if not lines:
        counts = ", ".join(f"{name} {count}" for name, count in file.report["stages"].items()) or "none"
        usable = f"of {file.report['rows']} rows, the usable ones are: {counts}"
        lines.append(f"no stage can train on every row: {usable}")
    return lines[:MAX_DETAILS]


def _shown_name(given: str) -> str:
    """A client's file name as it is shown; it is never used as a path."""
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", given)[-1])
    name = "".join(each for each in name if each.isprintable())
    return name[-MAX_NAME_CHARACTERS:] or "upload.jsonl"
