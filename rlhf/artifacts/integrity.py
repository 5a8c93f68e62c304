"""Checksums of a folder's files: written with it, and compared before it is used.

Every rank hashes its share of the files, dealt out largest first, so that the cost is one reading of the folder divided
by the ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.artifacts.files import read_json, sha256_of, short_hash
from rlhf.engine.ranks import Ranks

CHECKSUMS_FILE = "checksums.json"


def checksums(folder: Path, ranks: Ranks) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every file below `folder`, by name; called by all ranks together."""
    sizes = ranks.from_main(_sizes(folder) if ranks.is_main else {})
    hashes = _hashes(folder, sizes, ranks)
    return {name: {"bytes": sizes[name], "sha256": hashes[name]} for name in sorted(sizes)}


def damage(folder: Path, ranks: Ranks) -> str:
    """What is wrong with a folder that `checksums` were written for, naming the file; empty where nothing is.

    Called by all ranks together, which get the same answer. A folder without checksums.json cannot be
    checked, and passes.
    """
    expected, problem = ranks.from_main(_expected(folder) if ranks.is_main else ({}, ""))
    if problem:
        return problem
    hashes = _hashes(folder, {name: entry["bytes"] for name, entry in expected.items()}, ranks)
    for name in sorted(expected):
        known, found = expected[name]["sha256"], hashes[name]
        if found != known:
            hashes_differ = f"its SHA-256 is {short_hash(found)}, it was {short_hash(known)}"
            return f"{name} holds other bytes than were saved: {hashes_differ}"
    return ""


def _expected(folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """What checksums.json says, and a problem that shows without reading the files."""
    if not (folder / CHECKSUMS_FILE).is_file():
        return {}, ""
    try:
        expected: dict[str, dict[str, Any]] = read_json(folder / CHECKSUMS_FILE)
        listed = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in expected.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}, f"{CHECKSUMS_FILE} cannot be read"
    found = _sizes(folder)
    for name, (size, _) in sorted(listed.items()):
        if name not in found:
            return {}, f"{name} is missing"
        if found[name] != size:
            return {}, f"{name} has {found[name]:,} bytes, {size:,} were saved"
    strays = sorted(found.keys() - listed.keys())
    return expected, f"{strays[0]} was not saved with it" if strays else ""


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS_FILE)
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def _hashes(folder: Path, sizes: dict[str, int], ranks: Ranks) -> dict[str, str]:
    """SHA-256 by name, or why a file cannot be read."""
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    mine = {name: _hash(folder / name) for name in order[ranks.rank :: ranks.world_size]}
    return {name: value for share in ranks.gather(mine) for name, value in share.items()}


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        return f"unknown ({error.strerror})"
