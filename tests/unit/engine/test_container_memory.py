"""The memory limit of a container, from control-group files that are written here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from rlhf.engine import container_memory
from rlhf.engine.container_memory import GroupMemory, group_memory
from rlhf.engine.memory import free_memory

GIB = 2**30
VERSION_1_WITHOUT_LIMIT = "9223372036854771712\n"


def groups(folder: Path, membership: str, files: Mapping[str, object]) -> tuple[Path, Path]:
    """/proc/self/cgroup and /sys/fs/cgroup of a process, in `folder`."""
    (folder / "membership").write_text(membership, encoding="utf-8")
    for name, content in files.items():
        file = folder / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n", encoding="utf-8")
    return folder / "membership", folder / "groups"


def test_a_container_of_version_2_with_its_own_root(tmp_path: Path) -> None:
    """5 GiB of files that are not being read can be given back: 16 - 10 + 5 are free."""
    stat = f"anon {4 * GIB}\ninactive_file {5 * GIB}\nactive_file {GIB}"
    files = {"memory.max": 16 * GIB, "memory.current": 10 * GIB, "memory.stat": stat}
    assert group_memory(*groups(tmp_path, "0::/\n", files)) == GroupMemory(16 * GIB, 11 * GIB)


def test_the_groups_around_a_group_limit_it_too(tmp_path: Path) -> None:
    """The unit may use 8 GiB, and all jobs together 20, of which another one has taken most."""
    files = {
        "memory.max": "max",
        "memory.current": 60 * GIB,
        "jobs/memory.max": 20 * GIB,
        "jobs/memory.current": 17 * GIB,
        "jobs/unit/memory.max": 8 * GIB,
        "jobs/unit/memory.current": 2 * GIB,
    }
    assert group_memory(*groups(tmp_path, "0::/jobs/unit\n", files)) == GroupMemory(8 * GIB, 3 * GIB)


def test_a_container_of_version_1_that_sees_the_path_of_its_host(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": 12 * GIB,
        "memory/memory.usage_in_bytes": 7 * GIB,
        "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GIB}",
    }
    membership = "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab\n"
    assert group_memory(*groups(tmp_path, membership, files)) == GroupMemory(12 * GIB, 7 * GIB)


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": GIB}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": VERSION_1_WITHOUT_LIMIT, "memory/memory.usage_in_bytes": 1}),
        ("3:cpuset:/\n", {"cpuset/memory.limit_in_bytes": 1, "cpuset/memory.usage_in_bytes": 1}),
        ("", {}),
    ],
)
def test_without_a_limit(membership: str, files: Mapping[str, object], tmp_path: Path) -> None:
    assert group_memory(*groups(tmp_path, membership, files)) is None


@pytest.mark.parametrize(
    ("group", "free"),
    [(None, 50), (GroupMemory(16, 6), 6), (GroupMemory(100, 90), 50), (GroupMemory(16, -1), 0)],
)
def test_free_memory_of_a_cpu_is_what_machine_and_container_leave(
    group: GroupMemory | None, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50))
    monkeypatch.setattr(container_memory, "group_memory", lambda: group)
    assert free_memory(torch.device("cpu")) == free
