"""Which keys may change when a run is resumed."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from rlhf.config.keys import key_table
from rlhf.config.ppo import PpoConfig
from rlhf.config.resuming import DATA_PATH, RULES, changes, moved_data, rule_of
from rlhf.config.schema import SftConfig
from rlhf.config.sections import SourceSection
from rlhf.config.stages import STAGES


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("train.lr", "logged"),
        ("train.epochs", "logged"),
        ("train.batch_size", "logged"),
        ("ppo.kl_coefficient", "logged"),
        ("critic.lr", "logged"),
        ("sampling.temperature", "logged"),
        ("run.max_steps", "free"),
        ("checkpoint.keep_last", "free"),
        ("log.project", "free"),
        ("deepspeed.zero_stage", "free"),
        ("actor.deepspeed.zero_stage", "free"),
        ("reference.offload", "free"),
        ("run.seed", "refused"),
        ("data.train.0.path", "logged"),
        ("data.train.0.weight", "refused"),
        ("data.template", "refused"),
        ("data.on_bad_row", "free"),
        ("model.path", "refused"),
        ("model.lora.rank", "refused"),
        ("model.attention", "logged"),
        ("reward.path", "refused"),
        ("ppo.roles", "refused"),
    ],
)
def test_what_a_key_is(key, rule):
    assert rule_of(key) == rule


def test_every_pattern_is_of_a_key_that_there_is():
    keys = {name for stage in STAGES.values() for name in key_table(stage.config)}
    plain = [pattern for pattern, _ in RULES if "*" not in pattern]
    assert len(plain) > 15
    assert [pattern for pattern in plain if pattern not in keys] == []


def test_the_path_of_every_source_may_move_and_nothing_else_of_it_may_change():
    keys = {name for stage in STAGES.values() for name in key_table(stage.config)}
    lists = {"data.train", "data.eval", "data.demonstrations", "data.ptx"}
    assert {key.removesuffix(".N.path") for key in keys if key.startswith("data.") and key.endswith(".path")} == lists
    assert {key for key in keys if fnmatchcase(key, DATA_PATH)} == {f"{name}.N.path" for name in lists}
    for name in lists:
        assert rule_of(f"{name}.0.path") == rule_of(f"{name}.12.path") == "logged"
        others = {f"{name}.0.{field}" for field in SourceSection.model_fields} - {f"{name}.0.path"}
        assert {rule_of(key) for key in (name, f"{name}.0", *others)} == {"refused"}


def test_moved_data_are_the_paths_alone():
    old = {"run": {"seed": 1}, "data": {"ptx": [{"path": "가", "limit": 1}], "template": "a"}, "model": {"path": "나"}}
    new = {"run": {"seed": 2}, "data": {"ptx": [{"path": "다", "limit": 2}], "template": "b"}, "model": {"path": "라"}}
    assert [change.text for change in moved_data(old, new)] == ["data.ptx.0.path: 가 -> 다"]
    assert moved_data({}, new) == []


def test_differences_are_named_with_both_values():
    old = SftConfig.model_validate({"data": {"train": ["가.jsonl"]}, "train": {"lr": 1e-3}}).model_dump(mode="json")
    new = SftConfig.model_validate(
        {"data": {"train": ["나.jsonl"]}, "train": {"lr": 5e-4, "ema_decay": 0.9}, "checkpoint": {"keep_last": 5}}
    ).model_dump(mode="json")
    found = {change.key: (change.text, change.rule) for change in changes(old, new)}
    assert found == {
        "data.train.0.path": ("data.train.0.path: 가.jsonl -> 나.jsonl", "logged"),
        "train.lr": ("train.lr: 0.001 -> 0.0005", "logged"),
        "train.ema_decay": ("train.ema_decay: null -> 0.9", "logged"),
        "checkpoint.keep_last": ("checkpoint.keep_last: 2 -> 5", "free"),
    }


def test_another_number_of_files_shows_both_lists():
    old = {"data": {"train": [{"path": "가"}]}}
    new = {"data": {"train": [{"path": "가"}, {"path": "나"}]}}
    (change,) = changes(old, new)
    assert (change.text, change.rule) == ("data.train: 가 -> 가, 나", "refused")


def test_an_adapter_that_was_not_there_is_refused():
    old, new = PpoConfig().model_dump(), PpoConfig.model_validate({"model": {"lora": {"rank": 4}}}).model_dump()
    assert [(change.key, change.rule) for change in changes(old, new)] == [("model.lora", "refused")]


def test_the_same_configuration_has_no_changes_and_absent_keys_are_not_compared():
    config = PpoConfig().model_dump(mode="json")
    assert changes(config, PpoConfig().model_dump(mode="json")) == []
    assert changes({}, config) == []
    assert changes({"run": {"older": 1}}, config) == []
