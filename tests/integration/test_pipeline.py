"""The three stages chained by what they leave on disk, and read by plain transformers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.integration.conftest import read_json, read_lines

LINKS = [("reward", "base", "sft"), ("ppo", "actor", "sft"), ("ppo", "reference", "sft"), ("ppo", "reward", "reward")]


def test_every_stage_ends_finished_at_its_last_step(chain: dict[str, Path]) -> None:
    # 28 rows: 24 epochs in batches of 8; one epoch in batches of 4; two epochs in rollouts of 8
    steps = {"sft": 84, "reward": 7, "ppo": 7}
    for stage, folder in chain.items():
        assert read_json(folder / "state.json") == {
            "status": "finished",
            "stage": stage,
            "step": steps[stage],
            "reason": "",
        }
        assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == list(range(1, steps[stage] + 1))


@pytest.mark.parametrize(("child", "role", "parent"), LINKS)
def test_a_manifest_names_its_parent_by_hash_and_repeats_the_parents_data(
    chain: dict[str, Path], child: str, role: str, parent: str
) -> None:
    entry = read_json(chain[child] / "manifest.json")["parents"][role]
    assert entry["path"] == str(chain[parent] / "model")
    assert entry["sha256"] == hash_of_folder(chain[parent] / "model")
    assert entry["stage"] == parent
    assert entry["data"] == read_json(chain[parent] / "manifest.json")["data"]


def hash_of_folder(folder: Path) -> str:
    """As `sha256sum` over the files by name, and once more over its lines."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_base_is_named_by_hash_though_no_stage_made_it(chain: dict[str, Path], tiny_neox: Path) -> None:
    assert read_json(chain["sft"] / "manifest.json")["parents"] == {
        "base": {"path": str(tiny_neox), "sha256": hash_of_folder(tiny_neox)}
    }


@pytest.mark.parametrize(("stage", "name"), [("sft", "sft"), ("reward", "rankings"), ("ppo", "prompts")])
def test_a_manifest_names_data_by_hash_and_count(chain: dict[str, Path], korean: Path, stage: str, name: str) -> None:
    found = {entry["role"]: entry for entry in read_json(chain[stage] / "manifest.json")["data"]}
    for role, part, rows in (("train", "train", 28), ("eval", "dev", 4)):
        file = korean / f"{name}_{part}.jsonl"
        assert found[role]["path"] == str(file)
        assert found[role]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (found[role]["num_rows"], found[role]["num_kept"], found[role]["num_skipped"]) == (rows, rows, 0)


def test_a_manifest_says_with_what_it_was_made(chain: dict[str, Path]) -> None:
    manifests = [read_json(folder / "manifest.json") for folder in chain.values()]
    assert [manifest["stage"] for manifest in manifests] == ["sft", "reward", "ppo"]
    assert {manifest["tokenizer"]["sha256"] for manifest in manifests} == {manifests[0]["tokenizer"]["sha256"]}
    assert all("### 챗봇:" in manifest["tokenizer"]["template"] for manifest in manifests)
    assert all(manifest["settings"]["world_size"] == 1 for manifest in manifests)
    assert all(torch.__version__.startswith(manifest["packages"]["torch"]) for manifest in manifests)
    for folder, manifest in zip(chain.values(), manifests, strict=True):
        assert read_json(folder / "model" / "manifest.json") == manifest


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("sft", {"loss", "lr", "grad_norm", "tokens"}),
        ("reward", {"loss", "lr", "grad_norm", "tokens", "accuracy", "margin"}),
        ("ppo", {"loss", "lr", "grad_norm", "tokens", "policy_loss", "value_loss", "reward", "kl", "eos_rate"}),
        ("ppo", {"clip_fraction", "kl_coefficient", "critic_grad_norm"}),
    ],
)
def test_every_step_logs_its_metrics(chain: dict[str, Path], stage: str, names: set[str]) -> None:
    lines = read_lines(chain[stage] / "metrics.jsonl")
    assert lines
    for line in lines:
        assert names <= line.keys()
        assert line["tokens"] > 0
        assert line["grad_norm"] > 0


@pytest.mark.parametrize(("stage", "name"), [("sft", "eval_loss"), ("reward", "eval_accuracy"), ("ppo", "eval_reward")])
def test_held_out_figures_are_logged(chain: dict[str, Path], stage: str, name: str) -> None:
    every, last = {"sft": (28, 84), "reward": (2, 7), "ppo": (2, 7)}[stage]
    due = sorted({*range(every, last + 1, every), last})
    assert [line["step"] for line in read_lines(chain[stage] / "metrics.jsonl") if name in line] == due


def test_the_ppo_loss_is_policy_plus_weighted_value(chain: dict[str, Path]) -> None:
    for line in read_lines(chain["ppo"] / "metrics.jsonl"):
        assert line["value_loss"] > 0
        expected = line["policy_loss"] + line["value_loss"]
        assert line["loss"] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_ppo_starts_at_its_reference_and_leaves_it(chain: dict[str, Path]) -> None:
    lines = read_lines(chain["ppo"] / "metrics.jsonl")
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-4)  # nats a sequence, cached decoding against packed rows
    assert abs(lines[-1]["kl"]) > 1e-2
    assert all(0 <= line["eos_rate"] <= 1 for line in lines)


def test_training_learns(chain: dict[str, Path]) -> None:
    sft, reward = (read_lines(chain[stage] / "metrics.jsonl") for stage in ("sft", "reward"))
    assert sft[-1]["loss"] < 0.2 * sft[0]["loss"]
    assert sft[0]["eval_loss_before"] > sft[-1]["eval_loss"]
    assert reward[-1]["loss"] < reward[0]["loss"]


@pytest.mark.parametrize(("stage", "steps"), [("sft", [28, 56, 84]), ("ppo", [2, 4, 6, 7])])
def test_answers_to_held_out_prompts_are_kept(
    chain: dict[str, Path], korean: Path, stage: str, steps: list[int]
) -> None:
    samples = read_lines(chain[stage] / "samples.jsonl")
    asked = [row["prompt"] for row in read_lines(korean / "prompts_dev.jsonl")][:3]  # log.num_samples
    assert [sample["step"] for sample in samples] == [step for step in steps for _ in asked]
    for sample, question in zip(samples, asked * len(steps), strict=True):
        assert question in sample["prompt"]
        assert isinstance(sample["answer"], str)
        assert isinstance(sample["finished"], bool)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_tensorboard_holds_what_the_log_holds(chain: dict[str, Path], stage: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(chain[stage] / "tensorboard")).Reload()
    logged = [(line["step"], line["loss"]) for line in read_lines(chain[stage] / "metrics.jsonl")]
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in shown] == [step for step, _ in logged]
    assert [value for _, value in shown] == pytest.approx([value for _, value in logged], rel=1e-6)


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_plain_transformers_loads_the_policy_whole(chain: dict[str, Path], stage: str) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(chain[stage] / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(chain[stage] / "model")
    for settings in (model.config, model.generation_config):
        assert (settings.eos_token_id, settings.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_what_sft_learnt_by_heart_plain_transformers_says_and_ends(chain: dict[str, Path], korean: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(chain["sft"] / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(chain["sft"] / "model")
    for row in read_lines(korean / "sft_train.jsonl")[:4]:
        asked = chat(tokenizer, [{"role": "user", "content": row["prompt"]}], open_answer=True)
        ids = model.generate(asked, do_sample=False, max_new_tokens=60)[0, asked.shape[1] :]
        assert ids[-1] == model.config.eos_token_id
        assert tokenizer.decode(ids[:-1]) == row["response"]


def chat(tokenizer: Any, messages: list[dict[str, str]], *, open_answer: bool) -> torch.Tensor:
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=open_answer, return_dict=False)
    return torch.tensor([ids])


def test_the_reward_reads_zero_on_average_on_its_demonstrations(chain: dict[str, Path], korean: Path) -> None:
    model, report = AutoModelForSequenceClassification.from_pretrained(
        chain["reward"] / "model", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(chain["reward"] / "model")
    scores = []
    for row in read_lines(korean / "sft_dev.jsonl"):  # data.demonstrations
        talk = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
        ids = chat(tokenizer, talk, open_answer=False)
        assert ids[0, -1] == tokenizer.eos_token_id
        with torch.no_grad():
            scores.append(float(model.eval()(ids).logits))
    assert sum(scores) / len(scores) == pytest.approx(0, abs=1e-4)
    assert max(scores) - min(scores) > 1e-3  # not zero for everything
    moved = read_json(chain["reward"] / "model" / "report_card.json")["mean_before_shift"]
    assert abs(moved) > 1e-3  # something was shifted


def test_the_report_card_has_accuracy_with_its_interval_by_source(chain: dict[str, Path]) -> None:
    card = read_json(chain["reward"] / "model" / "report_card.json")
    assert card["num_rankings"] == 4
    assert card["num_pairs"] == 4 * 3  # three untied pairs of three answers
    assert card["by_source"].keys() == {"날씨", "생활"}
    # held out: the first question about every second thing of 비 밥 책 꽃
    assert {name: each["num_pairs"] for name, each in card["by_source"].items()} == {"날씨": 3, "생활": 9}
    for each in (card, card["neighbours"], card["longer_answer"], *card["by_source"].values()):
        assert 0 <= each["low"] <= each["accuracy"] <= each["high"] <= 1
    best = max(
        line["eval_accuracy"] for line in read_lines(chain["reward"] / "metrics.jsonl") if "eval_accuracy" in line
    )
    assert card["accuracy"] == best  # the best checkpoint is what was exported


def test_the_report_card_has_every_section(chain: dict[str, Path], korean: Path) -> None:
    card = read_json(chain["reward"] / "model" / "report_card.json")
    assert card["by_k"].keys() == {"3"}
    assert {gap: each["num_pairs"] for gap, each in card["by_rank_gap"].items()} == {"1": 8, "2": 4}
    assert sum(each["num_pairs"] for each in card["by_length"]) == 12
    assert card["calibration"]["num_pairs"] == 12
    assert card["length_correlation"].keys() == {"pearson", "spearman"}
    assert card["kendall"]["num_rankings"] == 4
    assert {"no_template", "trailing_space", "closing", "half", "empty", "no_eos"} <= card["probes"].keys()
    assert card["shortcuts"]["baselines"].keys() == {"longer_answer", "character_ngrams"}
    assert card["shortcuts"]["verdict"]
    # a held-out question is new, and its answers are those to the other questions about the same thing
    leaks = card["leakage"]
    assert leaks["num_prompts_seen"] == 0
    assert leaks["num_answers_seen"] == leaks["num_answers"] == 12
    assert [(each["model"], each["stage"], each["path"]) for each in leaks["checked"]] == [
        ("model", "reward", str(korean / "rankings_train.jsonl")),
        ("base", "sft", str(korean / "sft_train.jsonl")),
    ]
