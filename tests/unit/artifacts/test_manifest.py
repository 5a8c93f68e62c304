"""Where an artifact came from, and what is refused because it came from elsewhere."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest

import rlhf
from rlhf.artifacts.files import sha256_of, write_json, write_text
from rlhf.artifacts.manifest import build_manifest, manifest_of, package_versions, parent_entry, require_stage
from rlhf.errors import ArtifactError


def artifact(folder: Path, stage: str | None) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    if stage is not None:
        manifest = build_manifest(
            stage=stage, parents={}, data=[{"path": "a.jsonl", "rows": 3}], tokenizer={"sha256": "x"}, settings={}
        )
        write_json(folder / "manifest.json", manifest)
    return folder / "model"


def test_the_right_stage_passes(tmp_path):
    require_stage(str(artifact(tmp_path, "reward")), "reward", key="reward.path")
    require_stage(str(tmp_path), "reward", key="reward.path")  # the run folder itself


def test_an_sft_model_is_no_reward_model(tmp_path):
    # the VAIV run loaded its SFT model as critic and reward, and PPO ran
    path = str(artifact(tmp_path, "sft"))
    with pytest.raises(ArtifactError, match="was made by stage sft") as caught:
        require_stage(path, "reward", key="reward.path")
    assert caught.value.where == "reward.path"
    assert "an artifact made by stage reward" in caught.value.expected


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        require_stage(str(artifact(tmp_path, None)), "reward", key="reward.path")
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        require_stage("someone/reward-model", "reward", key="reward.path")


def test_the_manifest_inside_the_model_wins(tmp_path):
    model = artifact(tmp_path, "sft")
    write_json(model / "manifest.json", {"stage": "reward"})
    assert manifest_of(str(model)) == {"stage": "reward"}
    assert manifest_of(str(tmp_path))["stage"] == "sft"


def test_parents_are_recorded_with_hash_and_history(tmp_path):
    model = artifact(tmp_path / "sft", "sft")
    entry = parent_entry(str(model))
    inner = hashlib.sha256(b"{}").hexdigest()
    assert entry["sha256"] == hashlib.sha256(f"{inner}  config.json".encode()).hexdigest()
    assert (entry["path"], entry["stage"], entry["parents"]) == (str(model), "sft", {})
    assert entry["data"] == [{"path": "a.jsonl", "rows": 3}]
    assert parent_entry("EleutherAI/polyglot-ko-1.3b") == {"path": "EleutherAI/polyglot-ko-1.3b"}


def test_build_manifest_holds_everything(tmp_path):
    made = build_manifest(
        stage="ppo",
        parents={"actor": "beomi/KoAlpaca"},
        data=[{"rows": 1}],
        tokenizer={"sha256": "x", "template": "y"},
        settings={"world_size": 2},
    )
    assert made["parents"] == {"actor": {"path": "beomi/KoAlpaca"}}
    assert (made["stage"], made["data"], made["settings"]) == ("ppo", [{"rows": 1}], {"world_size": 2})
    assert made["tokenizer"] == {"sha256": "x", "template": "y"}
    assert made["packages"]["torch"] == version("torch")
    json.dumps(made)


def test_absent_packages_are_said_to_be_absent(monkeypatch):
    monkeypatch.setattr("rlhf.artifacts.manifest.PACKAGES", ("torch", "no-such-package-here"))
    expected = {"rlhf": rlhf.__version__, "torch": version("torch"), "no-such-package-here": "absent"}
    assert package_versions() == expected


# Files and hashes


def test_folder_hash_sees_content_and_names(tmp_path):
    def tree(name: str, **files: str) -> str:
        for path, text in files.items():
            file = tmp_path / name / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return sha256_of(tmp_path / name)

    same = tree("a", x="1", y__z="2")
    assert tree("b", y__z="2", x="1") == same
    assert len({same, tree("c", x="1", y__z="3"), tree("d", x="1", y__w="2"), tree("e", x="2", y__z="1")}) == 4


def test_write_text_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_text(path, "옛 글")

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "새 글")
    assert path.read_text(encoding="utf-8") == "옛 글"
    write_text(path, "새 글")
    assert path.read_text(encoding="utf-8") == "새 글"
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]
