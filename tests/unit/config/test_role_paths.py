"""Which path a role takes where none is named; training and the plan read the same function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths, role_paths
from rlhf.plan.roles import stage_shapes
from rlhf.train.policy.build_roles import checked_paths

WIDTHS = {"base": 16, "sft": 32, "reward": 48, "critic": 64}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model": "m"}, RolePaths("m", "m", None, "m")),
        ({"model": "m", "actor": "a"}, RolePaths("a", "a", None, "a")),
        ({"actor": "a", "reward": "r"}, RolePaths("a", "a", "r", "r")),
        ({"actor": "a", "reference": "f", "reward": "r", "critic": "c"}, RolePaths("a", "f", "r", "c")),
        ({"actor": "a", "critic": "c"}, RolePaths("a", "a", None, "c")),
        ({}, RolePaths("", "", None, "")),
    ],
)
def test_a_role_without_a_path_takes_that_of_another(given: dict[str, str], expected: RolePaths) -> None:
    assert role_paths(PpoConfig.model_validate({role: {"path": path} for role, path in given.items()})) == expected


def test_an_estimator_without_values_has_no_critic() -> None:
    config = {"ppo": {"estimator": "rloo", "samples_per_prompt": 4}, "actor": {"path": "a"}, "critic": {"path": "c"}}
    assert role_paths(PpoConfig.model_validate(config)).critic is None


@pytest.fixture
def config(tmp_path: Path) -> PpoConfig:
    """Four model folders without weights, told apart by their width; actor and reward are named."""
    for name, width in WIDTHS.items():
        (tmp_path / name).mkdir()
        shape = {"vocab_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        shape |= {"model_type": "gpt_neox", "hidden_size": width, "intermediate_size": 4 * width}
        (tmp_path / name / "config.json").write_text(json.dumps(shape), encoding="utf-8")
        stage = {"stage": "reward", "parents": {}, "data": []}
        (tmp_path / name / "manifest.json").write_text(json.dumps(stage), encoding="utf-8")
    reward = {"path": str(tmp_path / "reward"), "min_accuracy": None}
    return PpoConfig.model_validate({"actor": {"path": str(tmp_path / "sft")}, "reward": reward})


def seen(config: PpoConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Width of each role's model as training finds it, and as the plan does."""
    paths = checked_paths(config)
    named = {role: getattr(paths, role) for role in ("actor", "reference", "reward", "critic")}
    planned = {role: shape.width for role, shape in stage_shapes(config).items()}
    return {role: WIDTHS[Path(path).name] for role, path in named.items()}, planned


def test_training_and_plan_take_the_same_defaults(config: PpoConfig) -> None:
    trained, planned = seen(config)
    assert trained == planned == {"actor": 32, "reference": 32, "reward": 48, "critic": 48}


def test_a_changed_default_changes_both(config: PpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function itself is changed, so that whoever holds it sees the change."""

    def changed(config):
        from pathlib import Path

        from rlhf.config.role_paths import RolePaths

        folder = Path(config.actor.path).parent
        return RolePaths(config.actor.path, str(folder / "base"), config.reward.path, str(folder / "critic"))

    monkeypatch.setattr(role_paths, "__code__", changed.__code__)
    trained, planned = seen(config)
    assert trained == planned == {"actor": 32, "reference": 16, "reward": 48, "critic": 64}
