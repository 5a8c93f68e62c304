"""The adapter that a LoRA run leaves, read back: its settings, its tensors, and the base it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from rlhf.artifacts.export import AdapterBase, adapter_base, check_adapter
from rlhf.artifacts.files import read_json, sha256_of, short_hash
from rlhf.errors import ArtifactError
from rlhf.models.scalar_head import HEAD_WEIGHT

SAME_SETTINGS = ("r", "lora_alpha", "use_dora", "use_rslora")


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter/ folder.

    settings: adapter_config.json. layers: low-rank weights by name. head: [1, width] of a one-number model.
    embeddings: whole weights of embeddings that had grown.
    """

    folder: Path
    base: AdapterBase
    settings: dict[str, Any]
    layers: dict[str, Tensor]
    head: Tensor | None
    embeddings: dict[str, Tensor]

    @property
    def shape(self) -> dict[str, Any]:
        """Rank, scale, variant and targets: adapters that agree on them compute alike from the same weights."""
        targets = self.settings["target_modules"]
        return {name: self.settings[name] for name in SAME_SETTINGS} | {
            "target_modules": sorted(targets) if isinstance(targets, list) else targets
        }


def find_adapter(path: str) -> Path | None:
    """The adapter/ folder that `path` is, holds, or lies beside (a run folder, or its model/); None without one."""
    folder = Path(path)
    beside = [folder.parent / "adapter"] if folder.name == "model" else []
    places = [folder, folder / "adapter", *beside]
    return next((place for place in places if (place / "adapter_config.json").is_file()), None)


def read_adapter(folder: Path) -> StoredAdapter:
    """The adapter in `folder`, its base unchanged since.

    Raises: ArtifactError for an adapter that trained nothing, or whose base is gone or was replaced.
    """
    check_adapter(folder)
    require_same_base(folder, fix="restore the base as it was")
    layers: dict[str, Tensor] = {}
    embeddings: dict[str, Tensor] = {}
    head = None
    with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dictionary
            tensor = tensors.get_tensor(name)
            if "lora_" in name:
                layers[name] = tensor
            elif HEAD_WEIGHT.search(name):
                head = tensor
            else:
                embeddings[name] = tensor
    settings = read_json(folder / "adapter_config.json")
    return StoredAdapter(folder, adapter_base(folder), settings, layers, head, embeddings)


def base_identity(path: str) -> str:
    """The hash of a model folder, or a hub id as it is: what `AdapterBase.identity` is compared with."""
    folder = Path(path).resolve()
    if not folder.is_dir():
        return path
    return _cached_hash(folder, tuple(sorted((str(file), file.stat().st_mtime_ns) for file in folder.rglob("*"))))


@cache
def _cached_hash(folder: Path, times: tuple[tuple[str, int], ...]) -> str:
    """Cached, as hashing reads all of a base and several adapters share one; `times` of its files detect a change."""
    return sha256_of(folder)


def require_same_base(folder: Path, *, fix: str) -> None:
    """Checks that the base of an adapter/ folder is what it was when the adapter was trained; a hub id passes.

    Raises: ArtifactError when the base is absent, or holds other weights; `fix` is the remedy for the latter.
    """
    base = adapter_base(folder)
    if base.sha256 is None:
        return
    if not Path(base.path).is_dir():
        raise ArtifactError(
            f"the adapter's base {base.path} is absent",
            where=str(folder / "base.json"),
            expected="the model the adapter was trained on, at the same path",
            fix="put it back, or use the run's model/ in another folder, without its adapter",
        )
    found = base_identity(base.path)
    if found != base.sha256:
        raise ArtifactError(
            f"{base.path} is not the base the adapter was trained on: its hash is {short_hash(found)}, it was "
            f"{short_hash(base.sha256)}",
            where=str(folder / "base.json"),
            expected="the base unchanged: an adapter on other weights is an untrained model",
            fix=fix,
        )
