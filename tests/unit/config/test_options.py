"""Keys that depend on one another, and the forms a value may be given in."""

from __future__ import annotations

import pytest

from rlhf.config.load import config_schema, load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import RewardConfig, SftConfig, StageConfig
from rlhf.errors import ConfigError

ROOM = "sampling={max_prompt_tokens: 128, max_new_tokens: 32}"
FOUR_BIT = "model.quantize=4bit"


@pytest.mark.parametrize(
    ("model", "overrides", "problem", "fix"),
    [
        (SftConfig, ["model.lora.variant=dora", "deepspeed.zero_stage=3"], "length of every row", "ZeRO 0 to 2"),
        (PpoConfig, [FOUR_BIT], "needs model.lora", "model.lora.rank"),
        (RewardConfig, [FOUR_BIT, "model.lora.rank=2", "deepspeed.zero_stage=3"], "cannot partition", "ZeRO 0 to 2"),
        (SftConfig, ["eval.patience=2"], "data.eval is empty", "data.eval=FILE"),
        (RewardConfig, ["eval.patience=2"], "data.eval is empty", "data.eval=FILE"),
        (PpoConfig, ["ppo.samples_per_prompt=1", "ppo.estimator=rloo"], "nothing to compare", "at least 2"),
        (PpoConfig, ["ppo.samples_per_prompt=1", "ppo.estimator=grpo"], "nothing to compare", "at least 2"),
        (PpoConfig, ["ppo.samples_per_prompt=3", "ppo.estimator=grpo"], "must be a multiple", "change one"),
        (PpoConfig, ["model.lora.dropout=0.05", "model.lora.rank=2"], "depend on chance", "to 0"),
        (PpoConfig, ["ppo.kl_in=loss"], "gradient of log p", "choose k2 or k3"),
        (PpoConfig, ["ppo.value_warmup_steps=1", "ppo.estimator=reinforce_pp"], "needs a critic", "ppo.estimator=gae"),
        (PpoConfig, ["ppo.ptx_weight=1"], "data.ptx is empty", "data.ptx=FILE"),
        (PpoConfig, ["data.ptx=rows.jsonl"], "would not be used", "ppo.ptx_weight=1"),
        (SftConfig, ["train.optimizer=adafactor", "deepspeed.zero_stage=2"], "parts of flattened", "choose ZeRO 0"),
        (
            PpoConfig,
            ["train.optimizer=adafactor", "actor.deepspeed.zero_stage=1", "critic.optimizer=adafactor"],
            "ZeRO 1 gives it parts",
            "choose ZeRO 0",
        ),
        (PpoConfig, ["critic.optimizer=adafactor", "critic.deepspeed.zero_stage=3"], "flattened", "choose ZeRO 0"),
        (
            RewardConfig,
            ["train.optimizer=adamw8bit", "deepspeed.zero_stage=2", "deepspeed.offload_optimizer=true"],
            "does not work with offload_optimizer",
            "offload_optimizer=false",
        ),
        (PpoConfig, ["train.optimizer=adamw8bit", "ppo.roles=shared"], "one optimizer steps all", "both to the same"),
        (PpoConfig, ["ppo.drop_equal_groups=true"], "compares none", "ppo.estimator=rloo or grpo"),
        (PpoConfig, ["ppo.overlong_buffer=64", ROOM], "longer than the longest answer", "lower the first"),
        (PpoConfig, ["train.micro_tokens=160", ROOM, "ppo.ptx_weight=1", "data.ptx=r.jsonl"], "one sequence", "raise"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    model: type[StageConfig], overrides: list[str], problem: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(model, None, overrides)
    assert problem in caught.value.problem
    assert fix in caught.value.fix
    key, _, value = overrides[0].partition("=")
    assert key in caught.value.where
    assert value in caught.value.where


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        (SftConfig, ["model.lora.variant=dora", "deepspeed.zero_stage=2"]),
        (SftConfig, ["model.lora.variant=rslora", "deepspeed.zero_stage=3"]),
        (RewardConfig, [FOUR_BIT, "model.lora.rank=2", "deepspeed.zero_stage=2"]),
        (SftConfig, ["eval.patience=2", "data.eval=file.jsonl"]),
        (PpoConfig, ["ppo.estimator=grpo"]),
        (PpoConfig, ["ppo.kl_in=loss", "ppo.kl_estimator=k3"]),
        (PpoConfig, ["ppo.ptx_weight=1", "data.ptx=rows.jsonl"]),
        (PpoConfig, ["train.ema_decay=0.9"]),
        (PpoConfig, ["train.micro_tokens=160", ROOM]),  # data.max_length is longer, and not used without data.ptx
    ],
)
def test_what_works_is_accepted(model: type[StageConfig], overrides: list[str]) -> None:
    load_config(model, None, overrides)


@pytest.mark.parametrize(
    ("model", "stage", "override", "users"),
    [
        (PpoConfig, "ppo", "eval.patience=2", "sft, reward or dpo"),
        (RewardConfig, "reward", "log.num_samples=1", "sft, ppo or dpo"),
        (RewardConfig, "reward", "log.samples_every_steps=1", "sft, ppo or dpo"),
        (RewardConfig, "reward", "sampling.max_new_tokens=8", "sft, ppo or dpo"),
        (RewardConfig, "reward", "model.head=whole", "sft, ppo or dpo"),
        (RewardConfig, "reward", "data.train=[{path: a, answers: all}]", "sft"),
        (RewardConfig, "reward", "data.eval=[{path: a, answers: all}]", "sft"),
        (PpoConfig, "ppo", "data.train=[{path: a, answers: all}]", "sft"),
        (SftConfig, "sft", "ppo.clip=0.1", "ppo"),
    ],
)
def test_a_key_of_other_stages_says_so(model: type[StageConfig], stage: str, override: str, users: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(model, None, [override])
    assert error.value.problem == f"stage {stage} does not use this key"
    assert error.value.expected == f"it in stage {users} only"
    assert error.value.where.startswith("command line")
    assert error.value.fix == "remove it"


@pytest.mark.parametrize("model", [SftConfig, RewardConfig, PpoConfig])
def test_only_what_is_trained_on_has_a_weight(model: type[StageConfig]) -> None:
    load_config(model, None, ["data.train=[{path: a, weight: 2}]"])
    with pytest.raises(ConfigError, match="no such key") as error:
        load_config(model, None, ["data.eval=[{path: a, weight: 2}]"])
    assert "data.eval.0.weight" in str(error.value)


def test_demonstrations_may_be_all_ranked_answers() -> None:
    answers = "[{path: a, answers: all}]"
    assert load_config(SftConfig, None, [f"data.train={answers}"]).data.train[0].answers == "all"
    assert load_config(SftConfig, None, [f"data.eval={answers}"]).data.eval[0].answers == "all"
    assert load_config(RewardConfig, None, [f"data.demonstrations={answers}"]).data.demonstrations[0].answers == "all"
    config = load_config(PpoConfig, None, [f"data.ptx={answers}", "ppo.ptx_weight=1"])
    assert config.data.ptx[0].answers == "all"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.lr_groups=[{match: '(', scale: 2}]", "no regular expression"),
        ("train.lr_groups=[{match: head, scale: 0}]", "out of range"),
        ("train.ema_decay=1", "out of range"),
        ("train.neftune_alpha=-1", "out of range"),
    ],
)
def test_a_value_that_means_nothing_is_refused(override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(SftConfig, None, [override])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("reward.functions=[{path: polite}]", "not of the form package.module:function"),
        ("reward.functions=[{path: 'a:f', name: a/b}]", "not a name for a metric"),
        ("reward.endpoints=[{url: 'ftp://a'}]", "not an http or https address"),
        ("reward.functions=[{path: 'a:f'}, {path: 'b:f'}]", "share the name 'f'"),
        ("reward.functions=[{path: 'a:f', weigth: 1}]", "no such key"),
    ],
)
def test_a_reward_source_that_cannot_be_called_is_refused(override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(PpoConfig, None, [override])


def test_a_reward_source_has_a_name_of_its_own_in_metrics() -> None:
    functions = "reward.functions=[{path: 'a.b:polite'}, {path: 'a:f', name: rule}]"
    endpoint = "reward.endpoints=[{url: 'http://judge.example:8000/score'}]"
    reward = load_config(PpoConfig, None, ["reward.path=runs/reward", functions, endpoint]).reward
    assert reward.source_names == ["model", "polite", "rule", "judge.example"]


@pytest.mark.parametrize(
    ("overrides", "answers", "prompts", "whitens"),
    [
        ([], 1, 64, True),
        (["ppo.estimator=reinforce_pp"], 1, 64, True),
        (["ppo.estimator=rloo"], 4, 16, False),
        (["ppo.estimator=grpo", "ppo.samples_per_prompt=8"], 8, 8, False),
        (["ppo.estimator=grpo", "ppo.whiten_advantages=true"], 4, 16, True),
        (["ppo.samples_per_prompt=2", "ppo.whiten_advantages=false"], 2, 32, False),
    ],
)
def test_an_iteration_counts_samples(overrides: list[str], answers: int, prompts: int, whitens: bool) -> None:
    ppo = load_config(PpoConfig, None, overrides).ppo
    assert (ppo.answers_per_prompt, ppo.num_prompts, ppo.whitens) == (answers, prompts, whitens)


@pytest.mark.parametrize(
    ("stage", "section", "key", "kind"),
    [
        ("sft", "SftData", "train", "TrainingAnswers"),
        ("sft", "SftData", "eval", "AnswerSource"),
        ("reward", "RewardData", "train", "TrainingSource"),
        ("reward", "RewardData", "eval", "SourceSection"),
        ("ppo", "PpoData", "train", "TrainingSource"),
        ("ppo", "PpoData", "eval", "SourceSection"),
    ],
)
def test_the_schema_takes_every_form_of_sources_that_the_loader_takes(
    stage: str, section: str, key: str, kind: str
) -> None:
    node = config_schema(stage)["$defs"][section]["properties"][key]
    source = {"$ref": f"#/$defs/{kind}"}
    assert {"type": "string"} in node["anyOf"]
    assert source in node["anyOf"]
    assert {"type": "array", "items": {"anyOf": [{"type": "string"}, source]}} in node["anyOf"]
    for given in ("a", "[a, {path: b}]", "{path: a}", "null"):
        load_config(SftConfig, None, [f"data.{key}={given}"])


def test_the_schema_takes_one_target_or_a_list() -> None:
    options = config_schema("sft")["$defs"]["LoraSection"]["properties"]["targets"]["anyOf"]
    assert options == [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    assert config_schema("reward")["$defs"]["RewardData"]["properties"]["demonstrations"]["anyOf"]
