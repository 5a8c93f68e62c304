"""Data of a resumed run may move and may not change, whatever list of sources they are in; its disk needs room."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.artifacts.checkpoint import Checkpoint
from rlhf.config.schema import StageConfig
from rlhf.config.stages import STAGES
from rlhf.errors import CheckpointError
from rlhf.train.run.resume import require_room, require_same_inputs, require_same_run

ROLES = {
    "sft": ("train", "eval"),
    "reward": ("train", "eval", "demonstrations"),
    "ppo": ("train", "eval", "ptx"),
    "dpo": ("train", "eval"),
}
CASES = [(stage, role) for stage, roles in ROLES.items() for role in roles]


def config_of(stage: str, **paths: list[str]) -> StageConfig:
    more = {"ppo": {"ptx_weight": 1.0}} if "ptx" in paths else {}
    return STAGES[stage].config.model_validate({"data": paths, **more})


def saved(config: StageConfig) -> Checkpoint:
    return Checkpoint(Path("checkpoints/step-2"), {"step": 2, "config": config.model_dump(mode="json")})


def manifest(*data: tuple[str, str, str], tokenizer: str = "t", model: str = "m") -> dict[str, Any]:
    """Of (role, path, hash)s."""
    return {
        "data": [{"role": role, "path": path, "sha256": sha} for role, path, sha in data],
        "tokenizer": {"sha256": tokenizer},
        "parents": {"base": {"path": "p", "sha256": model}, "reward": {"path": "of/the/hub"}},
    }


@pytest.mark.parametrize(("stage", "role"), CASES)
def test_a_source_may_move(stage: str, role: str) -> None:
    before, now = config_of(stage, **{role: ["a", "b"]}), config_of(stage, **{role: ["c", "d"]})
    said = [change.text for change in require_same_run(saved(before), now)]
    assert said == [f"data.{role}.0.path: a -> c", f"data.{role}.1.path: b -> d"]
    known, found = manifest((role, "a", "1"), (role, "b", "2")), manifest((role, "c", "1"), (role, "d", "2"))
    require_same_inputs(known, found, saved(before), now)


@pytest.mark.parametrize(("stage", "role"), CASES)
@pytest.mark.parametrize("path", ["b", "c"], ids=["in place", "moved"])
def test_a_source_of_other_content_is_refused(stage: str, role: str, path: str) -> None:
    before, now = config_of(stage, **{role: ["a", "b"]}), config_of(stage, **{role: ["a", path]})
    known, found = manifest((role, "a", "1"), (role, "b", "2")), manifest((role, "a", "1"), (role, path, "3"))
    with pytest.raises(CheckpointError, match=rf"\n  {role} data, source 2, {path}: its SHA-256 is 3, it was 2 \(b\)"):
        require_same_inputs(known, found, saved(before), now)


@pytest.mark.parametrize(("stage", "role"), CASES)
def test_sources_that_change_places_are_refused(stage: str, role: str) -> None:
    before, now = config_of(stage, **{role: ["a", "b"]}), config_of(stage, **{role: ["b", "a"]})
    known, found = manifest((role, "a", "1"), (role, "b", "2")), manifest((role, "b", "2"), (role, "a", "1"))
    with pytest.raises(CheckpointError, match=rf"{role} data, source 1, b: .*\n  {role} data, source 2, a: "):
        require_same_inputs(known, found, saved(before), now)


@pytest.mark.parametrize(("stage", "role"), CASES)
def test_another_number_of_sources_is_refused(stage: str, role: str) -> None:
    before, now = config_of(stage, **{role: ["a"]}), config_of(stage, **{role: ["a", "b"]})
    with pytest.raises(CheckpointError, match=rf"data\.{role}: a -> a, b"):
        require_same_run(saved(before), now)


@pytest.mark.parametrize(("stage", "role"), CASES)
@pytest.mark.parametrize("recorded", [True, False], ids=["not in the manifest", "no manifest"])
def test_a_source_that_moved_and_cannot_be_compared_is_refused(stage: str, role: str, recorded: bool) -> None:
    """A run of an older version may have recorded less than is read now; what did not move passes, as it did then."""
    before, now = config_of(stage, **{role: ["a", "b"]}), config_of(stage, **{role: ["a", "c"]})
    known = manifest((role, "a", "1")) if recorded else None
    said = rf"models\n  data\.{role}\.1\.path: b -> c, and no hash of what was read there is known\n"
    with pytest.raises(CheckpointError, match=said):
        require_same_inputs(known, manifest((role, "a", "1"), (role, "c", "2")), saved(before), now)
    require_same_inputs(known, manifest((role, "a", "1"), (role, "b", "2")), saved(before), before)


def test_every_difference_is_shown_at_once() -> None:
    config = config_of("sft", train=["a"])
    with pytest.raises(CheckpointError) as caught:
        require_same_inputs(
            manifest(("train", "a", "1")),
            manifest(("train", "a", "2"), tokenizer="u", model="n"),
            saved(config),
            config,
        )
    assert caught.value.problem.splitlines() == [
        "checkpoints/step-2 belongs to a run on other data or models",
        "  tokenizer : its SHA-256 is u, it was t ()",
        "  train data, source 1, a: its SHA-256 is 2, it was 1 (a)",
        "  base model p: its SHA-256 is n, it was m (p)",
    ]


def test_a_disk_without_room_for_the_next_checkpoint_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "step-000001").mkdir()
    (tmp_path / "step-000001" / "weights.pt").write_bytes(b"0" * 1000)
    checkpoint = Checkpoint(tmp_path / "step-000001", {"step": 1})
    for free in (999, 1000):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if free == 1000:
            require_room(checkpoint)
            continue
        with pytest.raises(CheckpointError, match="has 999 bytes of room, and the next checkpoint takes 1,000"):
            require_room(checkpoint)
