"""For every key of every stage: another value, and what must be set for the key to matter.

`{base}` and the like are filled in by test_every_key.py. A key that cannot be observed in a short run on a CPU is in
ELSEWHERE, with the test that fails when it is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.tripwires import TripwiresSection


@dataclass(frozen=True)
class Case:
    """`change` lies over `given`; a run with both must differ from a run with `given` alone."""

    change: list[str]
    given: list[str] = field(default_factory=list)


def case(change: str, *given: str) -> Case:
    return Case([change], list(given))


def _source(key: str, path: str, *, weighted: bool = True, sample: str = "") -> dict[str, Case]:
    """Keys of the sources in `key`, whose usual file is `path`."""
    cases = {
        key: case(f"{key}={sample or path.replace('train', 'dev')}"),
        f"{key}.N.path": case(
            f"{key}=[{{path: {sample or path.replace('train', 'dev')}, name: same}}]",
            f"{key}=[{{path: {path}, name: same}}]",
        ),
        f"{key}.N.format": case(f"{key}=[{{path: {path}, format: alpaca}}]", f"{key}=[{{path: {path}}}]"),
        f"{key}.N.name": case(f"{key}=[{{path: {path}, name: other}}]", f"{key}=[{{path: {path}}}]"),
        f"{key}.N.ignore": case(
            f"{key}=[{{path: {{data}}/margin.jsonl, ignore: [margin]}}]", f"{key}=[{{path: {{data}}/margin.jsonl}}]"
        ),
        f"{key}.N.split": case(
            f"{key}=[{{path: {{data}}/hub, config: a, split: b}}]", f"{key}=[{{path: {{data}}/hub, config: a}}]"
        ),
        f"{key}.N.config": case(
            f"{key}=[{{path: {{data}}/hub, config: a, split: b}}]", f"{key}=[{{path: {{data}}/hub, split: b}}]"
        ),
        f"{key}.N.limit": case(f"{key}=[{{path: {path}, limit: 2}}]", f"{key}=[{{path: {path}}}]"),
    }
    if weighted:
        cases[f"{key}.N.weight"] = case(f"{key}=[{{path: {path}, weight: 2}}]", f"{key}=[{{path: {path}}}]")
    return cases


def _optimizer(section: str) -> dict[str, Case]:
    return {
        f"{section}.optimizer": case(f"{section}.optimizer=adafactor"),
        f"{section}.lr": case(f"{section}.lr=1.0e-4"),
        f"{section}.weight_decay": case(f"{section}.weight_decay=0.5"),
        f"{section}.beta1": case(f"{section}.beta1=0.5"),
        f"{section}.beta2": case(f"{section}.beta2=0.5"),
        f"{section}.epsilon": case(f"{section}.epsilon=0.01"),
        f"{section}.max_grad_norm": case(f"{section}.max_grad_norm=0.01"),
        f"{section}.lr_groups": case(f"{section}.lr_groups=[{{match: dense, scale: 0.1}}]"),
        f"{section}.lr_groups.N.match": case(
            f"{section}.lr_groups=[{{match: norm, scale: 0.1}}]", f"{section}.lr_groups=[{{match: dense, scale: 0.1}}]"
        ),
        f"{section}.lr_groups.N.scale": case(
            f"{section}.lr_groups=[{{match: dense, scale: 0.5}}]", f"{section}.lr_groups=[{{match: dense, scale: 0.1}}]"
        ),
    }


WRONG = "train_micro_batch_size_per_gpu: 0"  # refused by DeepSpeed, where it is asked


def _frozen_zero(section: str) -> dict[str, Case]:
    """A frozen role is an engine of DeepSpeed's at ZeRO 3 alone."""
    return {
        f"{section}.zero_stage": case(f"{section}.zero_stage=3", f"{section}.overrides={{{WRONG}}}"),
        f"{section}.overrides": case(f"{section}.overrides={{{WRONG}}}", f"{section}.zero_stage=3"),
    }


def _zero(section: str) -> dict[str, Case]:
    return {
        f"{section}.zero_stage": case(f"{section}.zero_stage=1"),
        f"{section}.overrides": case(f"{section}.overrides.gradient_clipping=1.0e-3", f"{section}.zero_stage=1"),
    }


LORA = "model.lora.rank=2"
COMMON: dict[str, Case] = {
    "run.dir": case("run.dir={elsewhere}"),
    "run.seed": case("run.seed=18"),
    "run.max_steps": case("run.max_steps=1"),
    "run.memory_check": case("run.memory_check=off"),
    "model.dtype": case("model.dtype=bfloat16"),
    "model.attention": case("model.attention=varlen"),
    "model.gradient_checkpointing": case("model.gradient_checkpointing=true"),
    "model.lora.rank": case("model.lora.rank=3", LORA),
    "model.lora.alpha": case("model.lora.alpha=5", LORA),
    "model.lora.dropout": case("model.lora.dropout=0.3", LORA),
    "model.lora.targets": case("model.lora.targets=[query_key_value]", LORA),
    "model.lora.variant": case("model.lora.variant=rslora", LORA),
    "model.quantize": case("model.quantize=4bit", LORA),
    "data.template": case("data.template=kullm"),
    **_optimizer("train"),
    "train.epochs": case("train.epochs=1", "run.max_steps=null"),
    "train.batch_size": case("train.batch_size=2"),
    "train.micro_tokens": case("train.micro_tokens=128"),
    "train.schedule": case("train.schedule=cosine", "train.schedule=linear"),
    "train.warmup_steps": case("train.warmup_steps=1", "train.warmup_ratio=0"),
    "train.warmup_ratio": case("train.warmup_ratio=0.25", "train.warmup_ratio=0"),
    "train.min_lr_ratio": case("train.min_lr_ratio=0.9", "train.schedule=linear"),
    **_zero("deepspeed"),
    "checkpoint.every_steps": case("checkpoint.every_steps=1"),
    "checkpoint.keep_last": case("checkpoint.keep_last=1", "checkpoint.every_steps=1"),
    "eval.every_steps": case("eval.every_steps=1"),
    "eval.max_rows": case("eval.max_rows=2"),
    "log.to": case("log.to=[]"),
}
ANSWERS: dict[str, Case] = {
    "log.samples_every_steps": case("log.samples_every_steps=1"),
    "log.num_samples": case("log.num_samples=1"),
    "sampling.max_new_tokens": case("sampling.max_new_tokens=4"),
    "sampling.max_prompt_tokens": case("sampling.max_prompt_tokens=12"),
    "sampling.temperature": case("sampling.temperature=0.5"),
    "sampling.top_k": case("sampling.top_k=2"),
    "sampling.top_p": case("sampling.top_p=0.3"),
    "sampling.batch_size": case("sampling.batch_size=1"),
    "sampling.stop": case("sampling.stop=[' ', '.', '요', '네', '비']"),
}
MARKED = ("dpo.loss=kto", "data.train={data}/marked.jsonl", "data.eval={data}/marked.jsonl")
COARSE = (  # half of all pairs of answers have the same reward
    "ppo.samples_per_prompt=2",
    "reward.path=''",
    "ppo.missing_eos_penalty=0",
    "reward.functions=[{path: 'tests.integration.coarse_rewards:coin'}]",
)
AGAIN = "data.train=[{path: {data}/prompts_train.jsonl, limit: 8}]"  # both iterations of a run answer the same prompts
BAD_ROW = "[{base_data}/sft_bad.jsonl]"
CASES: dict[str, dict[str, Case]] = {
    "sft": {
        **COMMON,
        **ANSWERS,
        "model.path": case("model.path={other}"),
        "model.head": case("model.head=liger"),
        "model.override_eos": case("model.override_eos=true", "model.path={other_eos}"),
        "model.adapter": case(
            "model.adapter={sft_lora}",
            "model.lora.rank=3",
            "model.lora.alpha=6",
            "model.lora.targets=[query_key_value, dense_h_to_4h]",
        ),
        **_source("data.train", "{data}/sft_train.jsonl"),
        "data.train.N.answers": case(
            "data.train=[{path: {data}/rankings_train.jsonl, answers: all}]",
            "data.train=[{path: {data}/rankings_train.jsonl}]",
        ),
        **_source("data.eval", "{data}/sft_dev.jsonl", weighted=False, sample="{data}/sft_train.jsonl"),
        "data.eval.N.answers": case(
            "data.eval=[{path: {data}/rankings_dev.jsonl, answers: all}]",
            "data.eval=[{path: {data}/rankings_dev.jsonl}]",
        ),
        "data.max_length": case("data.max_length=24"),
        "data.on_bad_row": case("data.on_bad_row=skip", "data.train={data}/sft_bad.jsonl"),
        "data.train_on": case("data.train_on=last", "data.train={data}/turns.jsonl"),
        "data.learn_tool_calls": case(
            "data.learn_tool_calls=true", "data.train={data}/calls.jsonl", "data.template={data}/calls.jinja"
        ),
        "train.ema_decay": case("train.ema_decay=0.5"),
        "train.prompt_loss_weight": case("train.prompt_loss_weight=0.5"),
        "train.neftune_alpha": case("train.neftune_alpha=5"),
        "eval.patience": case("eval.patience=1", "train.lr=0.5", "eval.every_steps=1", "train.warmup_ratio=0"),
    },
    "reward": {
        **COMMON,
        "model.path": case("model.path={other}"),
        "model.override_eos": case("model.override_eos=true", "model.path={other_eos}"),
        "model.adapter": case(
            "model.adapter={sft_lora}",
            "model.path={base}",
            "data.template=kullm",
            "model.lora.rank=3",
            "model.lora.alpha=6",
            "model.lora.targets=[query_key_value, dense_h_to_4h]",
        ),
        **_source("data.train", "{data}/rankings_train.jsonl"),
        **_source("data.eval", "{data}/rankings_dev.jsonl", weighted=False, sample="{data}/rankings_train.jsonl"),
        **_source("data.demonstrations", "{data}/sft_dev.jsonl", weighted=False, sample="{data}/sft_train.jsonl"),
        "data.demonstrations.N.answers": case(
            "data.demonstrations=[{path: {data}/rankings_dev.jsonl, answers: all}]",
            "data.demonstrations=[{path: {data}/rankings_dev.jsonl}]",
        ),
        "data.max_length": case("data.max_length=24"),
        "data.on_bad_row": case("data.on_bad_row=skip", "data.train={data}/rankings_bad.jsonl"),
        "data.max_answers": case("data.max_answers=2"),
        "train.epochs": case("train.epochs=2", "run.max_steps=null"),
        "train.label_smoothing": case("train.label_smoothing=0.2"),
        "train.centering": case("train.centering=0.5"),
        "train.margin": case("train.margin=scores", "data.train={data}/scored.jsonl"),
        "train.margin_scale": case("train.margin_scale=3", "data.train={data}/scored.jsonl", "train.margin=scores"),
        "train.normalise": case("train.normalise=mean_and_deviation"),
        "eval.patience": case("eval.patience=1", "train.lr=0.5", "eval.every_steps=1", "train.warmup_ratio=0"),
    },
    "ppo": {
        **{key: each for key, each in COMMON.items() if key not in {"model.lora.dropout"}},
        **{key: each for key, each in ANSWERS.items() if key != "log.samples_every_steps"},
        "log.samples_every_steps": case("log.samples_every_steps=1", "eval.every_steps=null"),
        "model.path": case("model.path={sft_other}", "model.path={sft}", "actor.path=''"),
        "model.head": case("model.head=liger"),
        "model.override_eos": case("model.override_eos=true", "actor.path={other_eos}"),
        "model.adapter": case("model.adapter={sft_lora}", LORA),
        "model.lora.dropout": case("model.lora.dropout=0.3", LORA),
        **_source("data.train", "{data}/prompts_train.jsonl"),
        **_source("data.eval", "{data}/prompts_dev.jsonl", weighted=False, sample="{data}/prompts_train.jsonl"),
        **_source("data.ptx", "{data}/sft_train.jsonl"),
        "data.ptx.N.answers": case(
            "data.ptx=[{path: {data}/rankings_train.jsonl, answers: all}]",
            "data.ptx=[{path: {data}/rankings_train.jsonl}]",
            "ppo.ptx_weight=1",
        ),
        "data.max_length": case("data.max_length=24", "data.ptx={data}/sft_train.jsonl", "ppo.ptx_weight=1"),
        "data.on_bad_row": case("data.on_bad_row=skip", "data.train={data}/prompts_bad.jsonl"),
        "data.curriculum": case("data.curriculum=length"),
        "train.ema_decay": case("train.ema_decay=0.5"),
        "train.batch_size": case("train.batch_size=8"),
        "train.warmup_steps": case("train.warmup_steps=2", "train.warmup_ratio=0"),
        "actor.path": case("actor.path={sft_other}"),
        "reference.path": case("reference.path={sft_other}"),
        "critic.path": case("critic.path={reward_other}"),
        "reward.path": case("reward.path={reward_other}"),
        **_zero("actor.deepspeed"),
        **_zero("critic.deepspeed"),
        **_frozen_zero("reference.deepspeed"),
        **_frozen_zero("reward.deepspeed"),
        **_optimizer("critic"),
        "reward.weight": case("reward.weight=2"),
        "reward.min_accuracy": case("reward.min_accuracy=0.6", "reward.path={reward_poor}"),
        "reward.functions": case("reward.functions=[{path: 'rlhf.train.reward_functions:polite'}]"),
        "reward.functions.N.path": case(
            "reward.functions=[{path: 'rlhf.train.reward_functions:length_penalty', name: f}]",
            "reward.functions=[{path: 'rlhf.train.reward_functions:polite', name: f}]",
        ),
        "reward.functions.N.weight": case(
            "reward.functions=[{path: 'rlhf.train.reward_functions:polite', weight: 3}]",
            "reward.functions=[{path: 'rlhf.train.reward_functions:polite'}]",
        ),
        "reward.functions.N.name": case(
            "reward.functions=[{path: 'rlhf.train.reward_functions:polite', name: kind}]",
            "reward.functions=[{path: 'rlhf.train.reward_functions:polite'}]",
        ),
        "reward.functions.N.options": case(
            "reward.functions=[{path: 'rlhf.train.reward_functions:length_penalty', options: {free_characters: 1}}]",
            "reward.functions=[{path: 'rlhf.train.reward_functions:length_penalty', options: {free_characters: 8}}]",
        ),
        "reward.endpoints": case("reward.endpoints=[{url: '{service}'}]"),
        "reward.endpoints.N.url": case(
            "reward.endpoints=[{url: 'http://127.0.0.1:9/none', retries: 0}]",
            "reward.endpoints=[{url: '{service}', retries: 0}]",
        ),
        "reward.endpoints.N.weight": case(
            "reward.endpoints=[{url: '{service}', weight: 3}]", "reward.endpoints=[{url: '{service}'}]"
        ),
        "reward.endpoints.N.name": case(
            "reward.endpoints=[{url: '{service}', name: other}]", "reward.endpoints=[{url: '{service}'}]"
        ),
        "reward.endpoints.N.batch_size": case(
            "reward.endpoints=[{url: '{service}', batch_size: 3}]", "reward.endpoints=[{url: '{service}'}]"
        ),
        "ppo.roles": case(
            "ppo.roles=shared",
            "actor.path={sft_lora}",
            "reward.path={reward_lora}",
            "reward.min_accuracy=null",
            "model.lora.rank=3",
            "model.lora.alpha=6",
            "model.lora.targets=[query_key_value, dense_h_to_4h]",
        ),
        "ppo.estimator": case("ppo.estimator=rloo", "ppo.samples_per_prompt=4"),
        "ppo.rollout_size": case("ppo.rollout_size=4"),
        "ppo.samples_per_prompt": case("ppo.samples_per_prompt=2"),
        "ppo.epochs": case("ppo.epochs=1"),
        "ppo.max_kl_per_iteration": case("ppo.max_kl_per_iteration=1.0e-9"),
        "ppo.value_warmup_steps": case("ppo.value_warmup_steps=1"),
        "ppo.gamma": case("ppo.gamma=0.5"),
        "ppo.lam": case("ppo.lam=0.5"),
        "ppo.clip": case("ppo.clip=0.001"),
        "ppo.clip_high": case("ppo.clip_high=0.0001"),
        "ppo.dual_clip": case("ppo.dual_clip=1.0001"),
        "ppo.value_clip": case("ppo.value_clip=0.001"),
        "ppo.entropy_weight": case("ppo.entropy_weight=0.1"),
        "ppo.kl_coefficient": case("ppo.kl_coefficient=1"),
        "ppo.kl_in": case("ppo.kl_in=loss", "ppo.kl_estimator=k3"),
        "ppo.kl_estimator": case("ppo.kl_estimator=k3"),
        "ppo.kl_target": case("ppo.kl_target=null"),
        "ppo.kl_horizon": case("ppo.kl_horizon=8"),
        "ppo.score_normalise": case("ppo.score_normalise=running"),
        "ppo.score_clip": case("ppo.score_clip=0.01"),
        "ppo.missing_eos_penalty": case("ppo.missing_eos_penalty=5", "sampling.max_new_tokens=4"),
        "ppo.overlong_buffer": case("ppo.overlong_buffer=4", "sampling.max_new_tokens=4"),
        "ppo.overlong_penalty": case(
            "ppo.overlong_penalty=3", "sampling.max_new_tokens=4", "ppo.overlong_buffer=4", "ppo.overlong_penalty=1"
        ),
        "ppo.drop_equal_groups": case("ppo.drop_equal_groups=true", "ppo.estimator=rloo", *COARSE),
        "ppo.refill_rounds": case(
            "ppo.refill_rounds=0", "ppo.estimator=rloo", *COARSE, "ppo.drop_equal_groups=true", "ppo.refill_rounds=8"
        ),
        "ppo.whiten_advantages": case("ppo.whiten_advantages=false"),
        "ppo.ptx_weight": case("ppo.ptx_weight=1", "data.ptx={data}/sft_train.jsonl", "ppo.ptx_weight=0.5"),
        "rollout.backend": case("rollout.backend=vllm"),
        "rollout.recompute_logprobs": case("rollout.recompute_logprobs=true"),
        "rollout.reuse": case("rollout.reuse=true", AGAIN),
        "rollout.reuse_top": case("rollout.reuse_top=2", AGAIN, "rollout.reuse=true", "sampling.temperature=2"),
        "tripwires.held_out_reward": case("tripwires.held_out_reward={reward_other}"),
        "control.enabled": case("control.enabled=false"),
        "control.best_of": case("control.best_of=[3]"),
        "control.max_prompts": case("control.max_prompts=2"),
        "control.samples": case("control.samples=2"),
    },
}
CASES["dpo"] = {
    **COMMON,
    **{key: ANSWERS[key] for key in ("log.num_samples", "log.samples_every_steps")},
    **{key: each for key, each in ANSWERS.items() if key.startswith("sampling.")},
    "model.path": case("model.path={other}", "data.template=polyglot-chat"),
    "model.head": case("model.head=liger"),
    "model.override_eos": case("model.override_eos=true", "model.path={other_eos}"),
    "model.adapter": CASES["reward"]["model.adapter"],
    **_source("data.train", "{data}/rankings_train.jsonl"),
    **_source("data.eval", "{data}/rankings_dev.jsonl", weighted=False, sample="{data}/rankings_train.jsonl"),
    "data.max_length": case("data.max_length=24"),
    "data.on_bad_row": case("data.on_bad_row=skip", "data.train={data}/rankings_bad.jsonl"),
    "data.max_answers": case("data.max_answers=2"),
    "train.epochs": case("train.epochs=2", "run.max_steps=null"),
    "train.ema_decay": case("train.ema_decay=0.5"),
    "eval.patience": case("eval.patience=1", "train.lr=1.0e-12", "eval.every_steps=1", "train.warmup_ratio=0"),
    "dpo.loss": case("dpo.loss=ipo"),
    "dpo.beta": case("dpo.beta=0.5"),
    "dpo.label_smoothing": case("dpo.label_smoothing=0.2"),
    "dpo.target_margin": case("dpo.target_margin=0", "dpo.loss=simpo"),
    "dpo.good_weight": case("dpo.good_weight=2", *MARKED),
    "dpo.bad_weight": case("dpo.bad_weight=2", *MARKED),
    "dpo.sft_weight": case("dpo.sft_weight=0.5"),
    "dpo.reference_from": case("dpo.reference_from={referenced}"),
    "dpo.kl_prompts": case("dpo.kl_prompts=0"),
    "dpo.max_kl": case("dpo.max_kl=1.0e-6", "eval.every_steps=2"),
}
CASES["ppo"] |= {
    key: Case(each.change, [*each.given, "ppo.ptx_weight=1"])
    for key, each in CASES["ppo"].items()
    if key.startswith("data.ptx")
}
# Runs that log metrics which no case does: several entries of data.train.
MORE_METRICS: dict[str, list[tuple[str, ...]]] = {
    "sft": [],
    "reward": [],
    "dpo": [],
    "ppo": [("data.train=[{path: {data}/prompts_train.jsonl, name: a}, {path: {data}/prompts_dev.jsonl, name: b}]",)],
}
NEVER_LOGGED: set[str] = set()
_WATCHDOG = "tests/unit/train/run/test_watchdog.py"
_ENDPOINTS = "tests/unit/train/policy/test_reward_endpoints.py"
_TRIPWIRES = "tests/unit/train/policy/test_tripwire_keys.py"
_OFFLOAD = "tests/unit/engine/test_zero_config.py::test_offload_keys"
ELSEWHERE: dict[str, str] = {
    "model.cudnn_attention": "tests/unit/models/test_attention_choice.py::test_cudnn_is_off_unless_it_is_asked_for",
    "log.project": "tests/trackers/test_services.py::test_the_project_and_the_name_are_taken_over",
    "rollout.cuda_graphs": "tests/unit/rollout/test_fixed_steps.py::test_graphs_that_are_off_are_not_captured",
    **{
        f"rollout.vllm.{key}": f"tests/unit/rollout/vllm/test_start.py::{name}"
        for name, keys in {
            "test_settings_reach_the_engine": [
                "gpu_memory",
                "cpu_cache_gib",
                "tensor_parallel",
                "max_batched_tokens",
                "eager",
                "devices",
                "bucket_mib",
                "timeout_s",
                "start_timeout_s",
            ],
            "test_the_transport_follows_the_configuration": ["transport"],
            "test_an_interpreter_that_is_not_there": ["python"],
        }.items()
        for key in keys
    },
    "rollout.overlap": "tests/unit/train/policy/test_ahead.py::test_overlap_needs_an_engine",
    "rollout.importance_cap": "tests/unit/train/policy/test_experience.py::test_answers_are_read_again_and_weighed",
    "run.watchdog_minutes": f"{_WATCHDOG}::test_a_step_that_does_not_end_is_named_with_its_place_and_ended",
    "reward.endpoints.N.send": f"{_ENDPOINTS}::test_whole_samples_are_sent_with_their_ids",
    "reward.endpoints.N.api_key_env": f"{_ENDPOINTS}::test_a_key_is_sent_and_a_missing_one_named",
    "reward.endpoints.N.timeout_s": f"{_ENDPOINTS}::test_a_silent_service_is_given_up",
    "reward.endpoints.N.retries": f"{_ENDPOINTS}::test_each_wait_is_twice_the_last",
    "reward.endpoints.N.backoff_s": f"{_ENDPOINTS}::test_each_wait_is_twice_the_last",
    **{
        f"{section}.{key}": _OFFLOAD
        for section in ("deepspeed", *(f"{role}.deepspeed" for role in ("actor", "reference", "reward", "critic")))
        for key in ("offload_optimizer", "offload_parameters")
    },
    **{
        f"{role}.offload": "tests/unit/engine/test_offload.py::test_weights_come_for_use_and_leave_when_parked"
        for role in ("reference", "reward")
    },
    **{
        f"tripwires.{name}.{key}": f"{_TRIPWIRES}::test_another_value_of_a_wire_trips_another_way"
        for name, wire in TripwiresSection().wires().items()
        for key in type(wire).model_fields
    },
}
