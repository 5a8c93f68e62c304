"""Memory that the control groups of this process allow: the limit of a container, which the machine's figures omit.

Source: docs.kernel.org/admin-guide/cgroup-v2.html, "Memory"; docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MEMBERSHIP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
NO_LIMIT = 2**60  # version 1 states a limit that no machine has


@dataclass(frozen=True, slots=True)
class GroupFiles:
    """Names of a version's files; `reclaimable`: the line of memory.stat that counts file pages not in use."""

    limit: str
    used: str
    reclaimable: str


VERSION_2 = GroupFiles("memory.max", "memory.current", "inactive_file")
VERSION_1 = GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """limit: bytes that the processes of a group may use together; free: what is left of them."""

    limit: int
    free: int


def group_memory(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> GroupMemory | None:
    """The tightest limit and the least free memory of the groups this process is in; None without a limit.

    A group's pages of files that nobody reads at the moment are free: the kernel gives them back when asked.
    """
    found = [memory for folder, files in _folders(membership, groups) if (memory := _read(folder, files))]
    if not found:
        return None
    return GroupMemory(min(each.limit for each in found), min(each.free for each in found))


def free_host_memory() -> int:
    """Bytes that this process can still allocate in CPU memory: those of the machine, within its groups' limits."""
    available, group = int(psutil.virtual_memory().available), group_memory()
    return available if group is None else max(0, min(available, group.free))


def _folders(membership: Path, groups: Path) -> Iterator[tuple[Path, GroupFiles]]:
    """The folders of this process's groups with those around them, up to the root that is mounted here.

    A container that sees the host's path of its group finds its own group at the root.
    """
    for line in _text(membership).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, files = groups, VERSION_2
        elif "memory" in controllers.split(","):
            root, files = groups / "memory", VERSION_1
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            yield folder, files
            if folder == root:
                break


def _read(folder: Path, files: GroupFiles) -> GroupMemory | None:
    limit, used = _number(_text(folder / files.limit)), _number(_text(folder / files.used))
    if limit is None or used is None or limit >= NO_LIMIT:
        return None
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    unused = sum(int(words[1]) for words in lines if len(words) == 2 and words[0] == files.reclaimable)
    return GroupMemory(limit, limit - used + unused)


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
