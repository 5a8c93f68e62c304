"""Preference optimisation from its script: a run in one go, one that was killed, and what it refuses."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CohereConfig, CohereForCausalLM, PreTrainedTokenizerFast

from rlhf.artifacts.reload import reload_and_compare
from rlhf.train.checkpoint_export import publish_checkpoint
from tests.conftest import _saved
from tests.integration.conftest import RANKINGS, Finished, read_json, read_lines, read_run, require_same_run, write_rows
from tests.integration.starts import Fault, Starter

Words = list[str | Path]


@pytest.fixture(scope="module")
def words(configs: dict[str, Path], chain: dict[str, Path]) -> Words:
    return ["--config", configs["dpo"], f"model.path={chain['sft']}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, starter: Starter, words: Words) -> Path:
    """28 rankings in batches of 4: seven steps, evaluated and saved after every second and the last."""
    path = tmp_path_factory.mktemp("dpo") / "whole"
    starter.run("dpo", *words, f"run.dir={path}")
    return path


@pytest.fixture(scope="module")
def whole(folder: Path) -> Finished:
    return read_run(folder)


def test_a_run_learns_the_order_and_leaves_a_policy(whole: Finished, folder: Path, chain: dict[str, Path]) -> None:
    first, last = whole.metrics[0], whole.metrics[-1]
    assert whole.state == {"status": "finished", "stage": "dpo", "step": 7, "reason": ""}
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)  # the policy is still its reference
    assert first["preference/margin"] == pytest.approx(0, abs=1e-3)
    assert last["eval/accuracy"] > 0.9
    assert last["eval/preference_loss"] < math.log(2) - 0.1
    kls = [line["eval/kl"] for line in whole.metrics if "eval/kl" in line]
    assert len(kls) == 4
    assert kls[-1] > 0.1
    assert {line["step"] for line in whole.samples} == {4, 7}
    model = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    start = load_file(chain["sft"] / "model" / "model.safetensors")
    assert any(not torch.equal(model[name], weight) for name, weight in start.items() if name in model)
    assert [path.name for path in (folder / "reference").iterdir()] == ["logprobs.safetensors"]


def test_a_killed_run_goes_on_the_same(starter: Starter, words: Words, whole: Finished, tmp_path: Path) -> None:
    here = [*words, f"run.dir={tmp_path}"]
    fault = Fault("rlhf.train.dpo:preference_step", 6)
    starter.run("dpo", *here, fault=fault, status=-signal.SIGKILL)
    assert sorted(path.name for path in (tmp_path / "reference").iterdir()) == ["logprobs.safetensors", "start-0000.pt"]
    text = starter.run("dpo", *here, "--resume", "auto")
    assert "after step 4" in text
    assert "log-probabilities read from" in text
    require_same_run(tmp_path, whole)


def test_a_run_on_the_same_rows_takes_over_the_reference(
    starter: Starter, words: Words, folder: Path, korean: Path, tmp_path: Path
) -> None:
    given = [*words, "run.max_steps=1", "dpo.beta=0.5", f"dpo.reference_from={folder}"]
    text = starter.run("dpo", *given, f"run.dir={tmp_path}/same", "--dry-run")
    assert f"log-probabilities read from {folder}" in text
    assert "dry run passed: 2 steps" in text
    other = [*given, f"data.train={korean}/rankings_dev.jsonl", f"run.dir={tmp_path}/other"]
    text = starter.run("dpo", *other, status=1)
    assert "has those of another model or other rows" in text


def test_a_run_that_goes_too_far_ends_with_the_best_from_before(
    starter: Starter, words: Words, whole: Finished, tmp_path: Path
) -> None:
    kls = {line["step"]: line["eval/kl"] for line in whole.metrics if "eval/kl" in line}
    assert kls[2] < kls[4]
    given = [*words, f"dpo.max_kl={(kls[2] + kls[4]) / 2}"]
    starter.run("dpo", *given, f"run.dir={tmp_path}/near")
    near = read_run(tmp_path / "near")
    assert near.metrics == whole.metrics[:4]
    assert near.state["status"] == "finished"
    assert near.state["reason"].endswith("at step 4 is above dpo.max_kl.")
    starter.run("dpo", *words, f"run.dir={tmp_path}/short", "run.max_steps=2", "train.schedule=cosine")
    short = read_run(tmp_path / "short")
    assert all(torch.equal(near.weights[name], weight) for name, weight in short.weights.items())
    starter.run("dpo", *words, f"run.dir={tmp_path}/near", "--resume", "auto")  # without the limit it goes on
    require_same_run(tmp_path / "near", whole)


def test_a_run_that_is_too_far_at_its_first_evaluation_says_what_it_exports(
    starter: Starter, words: Words, tmp_path: Path
) -> None:
    starter.run("dpo", *words, "dpo.max_kl=1.0e-9", f"run.dir={tmp_path}/far")
    far = read_run(tmp_path / "far")
    assert len(far.metrics) == 2
    assert far.state["status"] == "finished"
    assert "these weights are exported" in far.state["reason"]


def test_a_dry_run_keeps_nothing(starter: Starter, words: Words, tmp_path: Path) -> None:
    text = starter.run("dpo", *words, f"run.dir={tmp_path}/run", "--dry-run")
    assert "log-probabilities of 36 answers" in text  # 8 rankings of two steps, and 4 held out
    assert "dry run passed: 2 steps" in text
    assert list(tmp_path.iterdir()) == []


def test_of_lora_the_reference_is_the_base(starter: Starter, words: Words, tmp_path: Path) -> None:
    lora = ["model.lora.rank=2", "run.max_steps=2", "eval.every_steps=1", "train.lr=0.01", "train.warmup_ratio=0"]
    starter.run("dpo", *words, *lora, f"run.dir={tmp_path}/run")
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[1]["eval/kl"] != lines[0]["eval/kl"]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    publish_checkpoint(tmp_path / "run", tmp_path / "out", "latest", reload=reload_and_compare)
    stored, published = (
        load_file(each / "model.safetensors") for each in (tmp_path / "run" / "model", tmp_path / "out")
    )
    assert all(torch.equal(published[name], value) for name, value in stored.items())


def test_a_head_whose_logits_are_scaled_is_refused_before_the_reference_is_read(
    starter: Starter, configs: dict[str, Path], tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    size = {"vocab_size": len(tiny_tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = CohereConfig(intermediate_size=64, max_position_embeddings=256, logit_scale=0.25, **shape, **size)
    base = _saved(CohereForCausalLM, config, tmp_path / "base", tiny_tokenizer, seed=3)
    given = ["--config", configs["dpo"], f"model.path={base}", f"run.dir={tmp_path}/run"]
    assert "the model's head is wrong on rank 0" in starter.run("dpo", *given, status=1)
    assert not (tmp_path / "run" / "reference").exists()


def test_kto_learns_from_single_answers(starter: Starter, words: Words, tmp_path: Path) -> None:
    """The first 16 rows are good, the next 16 bad: most batches of two hold one kind."""
    rows = [
        {"prompt": row["prompt"], "completion": row["responses"][0 if number < 16 else 2], "label": number < 16}
        for number, row in enumerate(RANKINGS)
    ]
    write_rows(tmp_path / "marked.jsonl", rows)
    given = ["dpo.loss=kto", f"data.train={tmp_path}/marked.jsonl", f"data.eval={tmp_path}/marked.jsonl"]
    given += ["train.batch_size=2", "train.lr=0.002", f"run.dir={tmp_path}/run", "eval.every_steps=16"]
    starter.run("dpo", *words, *given)
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    kinds = {("preference/chosen_reward" in line, "preference/rejected_reward" in line) for line in lines}
    assert kinds == {(True, True), (True, False), (False, True)}
    assert lines[0]["loss"] == pytest.approx(0.5, abs=1e-3)
    assert lines[-1]["eval/preference_loss"] < 0.45
    assert lines[-1]["eval/margin"] > 0.1
    assert read_json(tmp_path / "run" / "state.json")["status"] == "finished"
