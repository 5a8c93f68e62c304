"""Files, overrides and errors of the configuration loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.load import config_schema, dump_config, load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import RewardConfig, SftConfig, StageConfig
from rlhf.config.stages import STAGES
from rlhf.errors import ConfigError


@pytest.fixture(autouse=True)
def _inside_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


def refuse(path: str | None, *overrides: str, model: type[StageConfig] = SftConfig) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(model, path, overrides)
    return caught.value


# --- base files ---


def test_the_child_wins_key_by_key_and_lists_replace() -> None:
    write(
        "far/grand.yaml",
        "train: {lr: 1, epochs: 2, beta1: 0.5}\ndata: {train: [a, b]}\nmodel: {lora: {rank: 4}}",
    )
    write("base.yaml", "base: far/grand.yaml\ntrain: {epochs: 3, beta1: 0.6}")
    path = write("configs/my.yaml", "base: ../base.yaml\ntrain: {beta1: 0.7}\ndata: {train: [c]}\nmodel: {lora: null}")
    config = load_config(SftConfig, path)
    assert (config.train.lr, config.train.epochs, config.train.beta1) == (1, 3, 0.7)
    assert [source.path for source in config.data.train] == ["c"]
    assert config.model.lora is None


def test_the_later_of_two_bases_wins() -> None:
    write("one.yaml", "train: {lr: 1, epochs: 1}")
    write("two.yaml", "train: {lr: 2}")
    train = load_config(SftConfig, write("my.yaml", "base: [one.yaml, two.yaml]")).train
    assert (train.lr, train.epochs) == (2, 1)


def test_two_bases_may_share_one() -> None:
    write("root.yaml", "train: {lr: 1}")
    write("one.yaml", "base: root.yaml")
    write("two.yaml", "base: root.yaml")
    assert load_config(SftConfig, write("my.yaml", "base: [one.yaml, two.yaml]")).train.lr == 1


def test_a_cycle_shows_the_chain() -> None:
    write("configs/b.yaml", "base:\n  - ../c.yaml\n")
    write("c.yaml", "base: configs/a.yaml")
    error = refuse(write("configs/a.yaml", "base: b.yaml"))
    chain = "configs/a.yaml -> configs/b.yaml -> c.yaml -> configs/a.yaml"
    assert error.problem == f"base files form a cycle: {chain}"
    assert error.where == 'c.yaml:1  base = "configs/a.yaml"'


def test_a_missing_base_names_who_asked_and_the_nearest_file() -> None:
    write("shared/common.yaml", "")
    error = refuse(write("configs/my.yaml", "train: {}\nbase:\n  - ../shared/comon.yaml"))
    assert error.problem == "no such file: shared/comon.yaml"
    assert error.where == 'configs/my.yaml:3  base = "../shared/comon.yaml"'
    assert error.fix == "did you mean shared/common.yaml?"


def test_a_missing_file_names_the_nearest_through_misspelt_folders() -> None:
    write("configs/kullm-5.8b/sft.yaml", "")
    assert refuse("configs/kulm-5.8b/sft.yml").fix == "did you mean configs/kullm-5.8b/sft.yaml?"
    assert refuse("nothing/like/it.yaml").problem == "no such file: nothing/like/it.yaml"


def test_a_folder_is_not_a_file() -> None:
    write("configs/my.yaml", "")
    assert refuse("configs").problem == "cannot read configs: Is a directory"


def test_base_must_be_a_file_name() -> None:
    error = refuse(write("my.yaml", "\nbase: 3"))
    assert (error.where, error.expected) == ("my.yaml:2  base = 3", "a YAML file, or a list of them")


def test_paths_in_values_stay_as_written() -> None:
    write("configs/base.yaml", "data: {train: [rows/a.jsonl]}")
    path = write("configs/my.yaml", "base: base.yaml\nmodel: {path: models/tiny}")
    config = load_config(SftConfig, Path(path))
    assert (config.model.path, config.data.train[0].path) == ("models/tiny", "rows/a.jsonl")


# --- overrides ---


def test_overrides_are_yaml_and_win_over_files() -> None:
    path = write("my.yaml", "train: {lr: 1, epochs: 2}\neval: {max_rows: 5}\nlog: {project: a}")
    overrides = [
        "train.lr=1e-5",
        "eval.max_rows=null",
        "log.project=b",
        'run.dir="1e-5"',
        "train.lr=2e-5",
    ]
    config = load_config(SftConfig, path, overrides)
    assert (config.train.lr, config.train.epochs) == (0.00002, 2)  # of two for one key the last wins
    assert config.eval.max_rows is None
    assert config.log.project == "b"
    assert config.run.dir == "1e-5"


def test_overrides_make_the_groups_above_them() -> None:
    path = write("my.yaml", "model: {lora: null}")
    for file in (path, None):
        lora = load_config(SftConfig, file, ["model.lora.targets=[query_key_value]"]).model.lora
        assert lora is not None
        assert lora.targets == ["query_key_value"]
    extra = load_config(SftConfig, None, ["deepspeed.overrides.a.b=1"]).deepspeed.overrides
    assert extra == {"a": {"b": 1}}


def test_an_override_with_a_group_is_merged() -> None:
    path = write("my.yaml", "model: {lora: {rank: 4, alpha: 5}}")
    lora = load_config(SftConfig, path, ["model.lora={rank: 6}"]).model.lora
    assert lora is not None
    assert (lora.rank, lora.alpha) == (6, 5)


def test_data_train_takes_a_path_a_list_and_an_index() -> None:
    assert load_config(SftConfig, None, ["data.train=a.jsonl"]).data.train[0].path == "a.jsonl"
    assert [s.path for s in load_config(SftConfig, None, ["data.train=[a,b]"]).data.train] == ["a", "b"]
    path = write("my.yaml", "data:\n  train:\n    - {path: a, weight: 3}\n    - {path: b}\n")
    sources = load_config(SftConfig, path, ["data.train.1.weight=2"]).data.train
    assert [(source.path, source.weight) for source in sources] == [("a", 3), ("b", 2)]


@pytest.mark.parametrize("index", ["2", "x", "-1"])
def test_an_index_outside_the_list_names_the_range(index: str) -> None:
    path = write("my.yaml", "data: {train: [{path: a}, {path: b}]}")
    error = refuse(path, f"data.train.{index}.weight=2")
    assert error.where == f"command line  data.train.{index}.weight = 2"
    assert error.problem == f"data.train is a list without an entry {index}"
    assert error.expected == "an index from 0 to 1, after data.train"


def test_a_wrong_value_in_a_list_names_the_override() -> None:
    path = write("my.yaml", "data:\n  train:\n    - {path: a}\n")
    assert refuse(path, "data.train.0.weight=heavy").where == "command line  data.train.0.weight = heavy"
    assert refuse(path, "data.train.0={weight: heavy}").where == 'command line  data.train.0.weight = "heavy"'


def test_an_index_needs_a_list() -> None:
    error = refuse(None, "data.train.0.weight=2")
    assert error.problem == "data.train is not set, so it has no entry 0"
    assert error.fix == "set the whole list: data.train=[...]"


def test_a_single_value_has_no_keys_below() -> None:
    error = refuse(write("my.yaml", "data:\n  train: [a.jsonl]"), "data.train.0.weight=2")
    assert error.where == "command line  data.train.0.weight = 2"
    assert error.problem == 'data.train.0 holds the single value "a.jsonl" (my.yaml:2)'
    assert error.fix == "remove .weight, or set the whole: data.train.0={...}"


@pytest.mark.parametrize("argument", ["train.lr", "=1", "train..lr=1", "--train.lr=1", "train.lr =1"])
def test_a_malformed_override_names_itself_and_the_form(argument: str) -> None:
    error = refuse(None, argument)
    assert error.where == f"command line  {argument}"
    assert error.problem == "not an override"
    assert "write key=value, such as train.lr=1e-5" in error.fix


def test_an_override_without_a_value_is_refused() -> None:
    error = refuse(None, "model.path=")
    assert (error.where, error.problem) == ("command line  model.path=", "no value after =")
    assert "model.path=null" in error.fix
    assert load_config(SftConfig, None, ['model.path=""']).model.path == ""


def test_an_override_that_is_not_yaml_names_itself() -> None:
    error = refuse(None, "data.train=[a")
    assert error.where == "command line  data.train=[a"
    assert error.problem.startswith("not valid YAML")
    assert refuse(None, "train={lr: 1, lr: 2}").where == "command line  train.lr"


def test_a_group_that_an_override_makes_is_the_overrides() -> None:
    error = refuse(write("my.yaml", "zzz: null"), "zzz.yyy=1")
    assert error.where == "command line  zzz.yyy = 1"


# --- several problems ---


def test_all_problems_are_reported_at_once() -> None:
    write("base.yaml", "train:\n  beta1: 7\n  beta2: 0.5\n  beta2: 0.6\n")
    path = write("my.yaml", "base: base.yaml\ntrain:\n  lr: fast\n  batchsize: 4\ndata:\n  max_length: 9\n")
    error = refuse(path, "foo", "run.seed=x", "data.eval.0.weight=1")
    assert {problem.where for problem in error.problems} == {
        "base.yaml:4  train.beta2",
        "base.yaml:2  train.beta1 = 7",
        'my.yaml:3  train.lr = "fast"',
        "my.yaml:4  train.batchsize = 4",
        "command line  foo",
        "command line  run.seed = x",
        "command line  data.eval.0.weight = 1",
    }
    assert str(error).startswith("7 configuration problems\n")
    assert all(problem.render() in str(error) for problem in error.problems)


def test_a_rule_over_keys_waits_for_every_override() -> None:
    error = refuse(write("my.yaml", "train: {micro_tokens: 8}"), "data.max_length 8")
    assert error.where == "command line  data.max_length 8"  # and not that 8 cannot hold the default length


def test_a_wrong_group_in_two_files_is_shown_where_it_was_set_last() -> None:
    write("base.yaml", "trian: {lr: 1}")
    assert refuse(write("my.yaml", "base: base.yaml\ntrian: {lr: 2}")).where == 'my.yaml:2  trian = {"lr": 2}'


def test_what_an_unreadable_base_may_hold_is_not_complained_about() -> None:
    path = write("my.yaml", "base: [gone.yaml, broken.yaml]\ntrain: {micro_tokens: 8, epochs: x}\n")
    write("broken.yaml", "a: [\n")
    error = refuse(path, "data.train.0.weight=1")  # gone.yaml may hold data.train and data.max_length
    assert [problem.where.partition(" ")[0] for problem in error.problems] == [
        "my.yaml:1",
        "broken.yaml:2",
        "my.yaml:2",
    ]


# --- dump and schema ---


@pytest.mark.parametrize("stage", STAGES)
def test_a_dump_reads_back_equal(stage: str) -> None:
    model: type[StageConfig] = STAGES[stage].config
    overrides = [
        "train.lr=3e-7",
        'run.dir="1e-5"',
        "data.train=[{path: '실행 #1: 안녕', weight: 0.1}, 'no', '2024-01-01', \"0x1f\", \"a\\nb\\t\"]",
        "data.eval=''",
        "model.lora.targets=[a, 'null', '']",
        "deepspeed.overrides={a: [1, 2.5, null, '1'], b: {c: true, d: 5e8, e: 1e+22}}",
    ]
    config = load_config(model, None, overrides)
    text = dump_config(config)
    assert "실행 #1: 안녕" in text
    assert load_config(model, write("config.yaml", text)) == config
    assert text.splitlines()[0].startswith(f"# stage: {stage} ")
    sections = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0].isalpha()]
    assert sections == list(model.model_fields)


def test_a_dump_holds_every_default() -> None:
    text = dump_config(SftConfig())
    assert "  max_steps: null\n" in text
    assert "  lr: 1.0e-05\n" in text


@pytest.mark.parametrize(
    ("stage", "section", "key", "default"),
    [
        ("sft", "SftTrain", "lr", 1e-5),
        ("sft", "RunSection", "seed", 17),
        ("reward", "RewardTrain", "label_smoothing", 0.0),
        ("reward", "RewardData", "max_answers", 9),
        ("ppo", "PpoTrain", "lr", 1e-6),
        ("ppo", "PpoSection", "kl_coefficient", 0.05),
        ("ppo", "DeepSpeedSection", "zero_stage", 0),
    ],
)
def test_the_schema_has_descriptions_and_defaults(stage: str, section: str, key: str, default: float) -> None:
    node = config_schema(stage)["$defs"][section]["properties"][key]
    assert node["default"] == default
    assert len(node["description"]) > 3


def test_the_schema_allows_base() -> None:
    assert "base" in config_schema("sft")["properties"]
    assert set(config_schema("ppo")["properties"]) == {"base", *PpoConfig.model_fields}


def test_an_unknown_stage_names_the_stages() -> None:
    with pytest.raises(ConfigError, match="no stage 'rm'\n  expected: one of sft, reward, ppo"):
        config_schema("rm")


def test_the_class_of_the_stage_comes_back() -> None:
    assert type(load_config(RewardConfig, None)) is RewardConfig
