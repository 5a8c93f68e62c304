"""What the errors about values and keys say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import SftConfig, StageConfig
from rlhf.errors import ConfigError


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refuse(*overrides: str, file: str | None = None, model: type[StageConfig] = SftConfig) -> ConfigError:
    if file is not None:
        Path("my.yaml").write_text(file, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(model, None if file is None else "my.yaml", overrides)
    return caught.value


# --- wrong values ---


def test_a_wrong_type_says_place_expectation_and_fix() -> None:
    error = refuse(file="train:\n  lr: fast\n")
    assert str(error) == (
        'my.yaml:2  train.lr = "fast": not of the type expected\n'
        "  expected: a number above 0; peak learning rate\n"
        "  fix:      write a number above 0, without quotes; the default is 1e-05"
    )
    assert refuse("train.lr=fast").where == "command line  train.lr = fast"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr=-1", "a number above 0"),
        ("train.lr=.nan", "a number above 0"),
        ("train.warmup_ratio=2", "a number from 0 to 1"),
        ("train.beta1=1", "a number at least 0 and below 1"),
        ("run.max_steps=0", "a whole number above 0 or null"),
        ("sampling.top_p=0", "a number above 0 and at most 1"),
    ],
)
def test_a_value_out_of_range_says_the_range(override: str, expected: str) -> None:
    error = refuse(override)
    assert error.where == f"command line  {override.replace('=', ' = ')}"
    assert error.problem == "out of range"
    assert error.expected.split(";")[0] == expected


def test_a_wrong_choice_names_all_and_the_nearest() -> None:
    error = refuse("train.schedule=cosin")
    assert error.problem == "not one of the values allowed"
    assert error.expected.split(";")[0] == "one of cosine, linear, constant"
    assert error.fix == "did you mean cosine?"
    assert "the default is 0" in refuse("deepspeed.zero_stage=5").fix


def test_a_number_for_text_is_to_be_quoted() -> None:
    assert refuse("run.dir=7").fix == "put it in quotes in YAML, on the command line run.dir='\"7\"'"


def test_a_union_is_reported_once_with_all_it_takes() -> None:
    error = refuse(file="model:\n  lora:\n    targets:\n      - a\n      - 3\n")
    assert error.where == 'my.yaml:3  model.lora.targets = ["a", 3]'
    assert error.expected.startswith("a list (each entry: text) or all-linear; ")
    assert error.problems == ()


def test_a_union_shows_the_problem_of_its_first_option() -> None:
    assert refuse("model.lora.targets=3").problem == "not of the type expected"


def test_a_wrong_value_that_became_an_entry_is_shown_as_written() -> None:
    assert refuse(file="data:\n  train: 3\n").where == "my.yaml:2  data.train = 3"


def test_a_long_value_is_cut() -> None:
    assert refuse(file=f"train: {{lr: {'x' * 99}}}").where == f'my.yaml:1  train.lr = "{"x" * 56}...'


def test_a_section_without_keys_lists_what_it_takes() -> None:
    error = refuse(file="checkpoint:\n")
    assert error.where == "my.yaml:1  checkpoint = null"
    assert error.expected.startswith("a group of keys (every_steps, keep_last")


def test_a_required_key_names_the_entry_that_lacks_it() -> None:
    error = refuse(file="data:\n  train:\n    - path: a\n    - weight: 2\n")
    assert error.where == 'my.yaml:4  data.train.1 = {"weight": 2}'
    assert (error.problem, error.fix) == ("path is missing", "add data.train.1.path")
    assert error.expected.startswith("data.train.1.path: text")


def test_a_wrong_value_inside_a_path_turned_into_a_source_keeps_its_place() -> None:
    error = refuse(file="data:\n  train:\n    - a\n    - {path: b,\n       weight: heavy}\n")
    assert error.where == 'my.yaml:5  data.train.1.weight = "heavy"'


def test_a_value_below_a_single_value_is_that_values_problem() -> None:
    error = refuse("run.seed.x=1")
    assert error.where == "command line  run.seed.x = 1"
    assert error.expected.startswith("a whole number at least 0")


# --- unknown keys ---


@pytest.mark.parametrize(
    ("model", "override", "near"),
    [
        (SftConfig, "train.batchsize=1", "train.batch_size"),
        (SftConfig, "lr=1e-5", "train.lr"),
        (PpoConfig, "lr=1e-5", "train.lr or critic.lr"),
        (PpoConfig, "trian.lr=1", "train.lr"),
        (SftConfig, "train.zero_stage=2", "deepspeed.zero_stage"),
        (SftConfig, "model.lora.r=2", "model.lora.rank"),
        (SftConfig, "train.learning_rate=1", "train.lr"),  # by its description, peak learning rate
        (SftConfig, "trian={lr: 1}", "train"),
        (SftConfig, "zero={zero_stage: 1}", "deepspeed"),  # by the keys given below it
        (SftConfig, "data.train=[a, {path: b, wieght: 2}]", "data.train.1.weight"),
    ],
)
def test_an_unknown_key_names_the_nearest(model: type[StageConfig], override: str, near: str) -> None:
    error = refuse(override, model=model)
    assert error.problem == "no such key"
    assert error.fix == f"did you mean {near}?"


def test_an_unknown_key_names_its_place_and_the_keys_there() -> None:
    error = refuse(file="# first\ncheckpoint:\n  evry_steps: 3\n")
    assert error.where == "my.yaml:3  checkpoint.evry_steps = 3"
    assert error.expected.startswith("a key of checkpoint: every_steps, keep_last")
    assert refuse("zzz.yyy=1").where == "command line  zzz.yyy = 1"
    assert refuse("zzz.yyy=1").fix == "remove it; --help lists every key"


def test_an_unknown_key_far_below_a_section_lists_that_section() -> None:
    error = refuse("train.zzz.yyy=1")
    assert error.where == "command line  train.zzz.yyy = 1"
    assert error.expected.startswith("a key of train: ")


def test_a_key_of_another_stage_is_unknown() -> None:
    assert load_config(PpoConfig, None, ["ppo.epochs=2"]).ppo.epochs == 2
    assert refuse("ppo.epochs=2").where == "command line  ppo.epochs = 2"


# --- rules over several keys ---


def test_a_rule_over_keys_shows_its_message_and_where_they_were_set() -> None:
    file = "data:\n  max_length: 64\ntrain:\n  micro_tokens: 8\n"
    error = refuse("data.max_length=16", file=file)
    assert error.where == "my.yaml:4  train.micro_tokens = 8, command line  data.max_length = 16"
    assert error.problem == "train.micro_tokens = 8 cannot hold one sequence of data.max_length = 16 tokens"
    assert error.fix == "raise the first or lower the second"


def test_a_rule_of_a_section_names_the_keys_where_it_stands() -> None:
    """The same section stands under `deepspeed` and under roles."""
    error = refuse("deepspeed.offload_parameters=true", "deepspeed.zero_stage=2")
    places = {"command line  deepspeed.offload_parameters = true", "command line  deepspeed.zero_stage = 2"}
    assert set(error.where.split(", ")) == places
    assert error.problem == "offload_parameters needs zero_stage 3, and zero_stage is 2"
    assert error.fix == "set deepspeed.zero_stage=3, or deepspeed.offload_parameters=false"


def test_a_rule_of_a_section_names_the_keys_of_its_role() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PpoConfig, None, ["actor.path=a", "reward.path=r", "critic.deepspeed.offload_optimizer=true"])
    assert "critic.deepspeed.offload_optimizer = true" in caught.value.where
    assert caught.value.fix == "set critic.deepspeed.zero_stage=2, or critic.deepspeed.offload_optimizer=false"


def test_a_key_that_a_rule_names_without_a_value_has_its_place_too() -> None:
    words = ["actor.path=a", "reward.path=r", "rollout.vllm.transport=nccl", "rollout.vllm.devices=[]"]
    with pytest.raises(ConfigError) as caught:
        load_config(PpoConfig, None, words)
    places = {"command line  rollout.vllm.transport = nccl", "command line  rollout.vllm.devices = []"}
    assert set(caught.value.where.split(", ")) == places
    assert caught.value.problem == "rollout.vllm.transport = nccl goes between GPUs, and devices is empty"
