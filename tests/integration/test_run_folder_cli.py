"""What a person who starts a stage meets: the folder it is given, and mistakes named with their place and their fix."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.integration.conftest import read_json, read_lines
from tests.integration.starts import Fault, Started, Starter, wait_until


def everything_in(folder: Path) -> dict[str, str]:
    """Every file by its hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def changed(configs: dict[str, Path], stage: str, old: str, new: str, folder: Path) -> tuple[Path, int]:
    """A copy of a configuration with one line changed, and that line's number."""
    lines = configs[stage].read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line == old]
    lines[number - 1] = new
    path = folder / f"{stage}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, number


# The folder


def test_a_used_folder_is_refused_and_keeps_everything(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(chain["sft"], tmp_path / "run")
    before = everything_in(tmp_path / "run")
    text = starter.run("sft", "--config", configs["sft"], f"run.dir={tmp_path}/run", "run.seed=5", status=1)
    assert f"ArtifactError: run.dir: {tmp_path}/run already holds a run (finished)" in text
    assert "add --resume auto to go on with it, or choose another run.dir" in text
    assert "Traceback" not in text
    after = everything_in(tmp_path / "run")
    assert {name for name in before if before[name] != after.get(name)} <= {".lock"}


def test_a_resume_at_another_zero_stage_converts_the_checkpoint(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing is left to train: the model that is written again is the same."""
    shutil.copytree(chain["sft"], tmp_path / "run")
    words = ["--config", configs["sft"], f"run.dir={tmp_path}/run", "--resume", "auto", "deepspeed.zero_stage=1"]
    text = starter.run("sft", *words)
    assert "converted from 1 rank at ZeRO 0 in float32 to 1 rank at ZeRO 1 in float32" in text
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (chain["sft"], tmp_path / "run"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("call", [2, 4], ids=["before its first checkpoint", "after it"])
@pytest.mark.parametrize("flags", [[], ["--resume", "auto"]], ids=["afresh", "resume"])
def test_a_live_run_keeps_its_folder(
    starter: Starter, configs: dict[str, Path], tmp_path: Path, call: int, flags: list[str]
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}"]
    live = starter.start("sft", *words, fault=Fault("rlhf.train.sft:sft_step", call, signal.SIGSTOP))
    try:
        wait_until(lambda: is_stopped(live.pid), f"step {call}")
        assert read_json(tmp_path / "state.json")["status"] == "running"
        before = everything_in(tmp_path)
        text = starter.run("sft", *words, "train.lr=1.0", *flags, status=1)
        assert f"RunLockedError: run.dir: {tmp_path} is in use by process {live.pid} on " in text
        assert "wait until that run has ended, or choose another run.dir" in text
        assert everything_in(tmp_path) == before
        os.kill(live.pid, signal.SIGCONT)
        assert live.wait().status == 0
    finally:
        live.kill()
    assert read_json(tmp_path / "state.json")["status"] == "finished"
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == list(range(1, 8))


def test_state_is_running_then_finished(starter: Starter, configs: dict[str, Path], tmp_path: Path) -> None:
    live = starter.start(
        "sft",
        "--config",
        configs["sft"],
        f"run.dir={tmp_path}",
        fault=Fault("rlhf.train.sft:export", 1, signal.SIGSTOP),
    )
    assert states_at_stop_and_end(live, tmp_path) == [("running", 0), ("finished", 7)]


def states_at_stop_and_end(live: Started, folder: Path) -> list[tuple[str, int]]:
    states = []
    try:
        wait_until(lambda: is_stopped(live.pid), "the stop")
        states.append(read_json(folder / "state.json"))
        os.kill(live.pid, signal.SIGCONT)
        assert live.wait().status == 0
        states.append(read_json(folder / "state.json"))
    finally:
        live.kill()
    return [(state["status"], state["step"]) for state in states]


def test_state_is_failed_with_step_and_reason(starter: Starter, configs: dict[str, Path], tmp_path: Path) -> None:
    text = starter.run("sft", "--config", configs["sft"], f"run.dir={tmp_path}", "train.lr=1.0e+30", status=1)
    assert "NonFiniteError: " in text
    assert "fix:      lower the learning rate" in text
    state = read_json(tmp_path / "state.json")
    assert (state["status"], state["stage"]) == ("failed", "sft")
    assert state["step"] == len(read_lines(tmp_path / "metrics.jsonl")) > 0  # the last step that was completed
    assert state["reason"] in text
    assert not (tmp_path / "model").exists()


def test_a_failure_that_is_nobodys_mistake_is_kept_with_its_traceback(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}", 'deepspeed.overrides={"zero_optimization": 7}']
    assert "Traceback" in starter.run("sft", *words, status=1)
    state = read_json(tmp_path / "state.json")
    assert state["status"] == "failed"
    assert state["reason"]


# --dry-run


def test_a_dry_run_says_it_passed_and_leaves_nothing(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    text = starter.run("sft", "--config", configs["sft"], f"run.dir={tmp_path}/run", "--dry-run")
    assert "dry run passed" in text
    assert files_below(tmp_path) == []


def test_a_dry_run_leaves_a_used_folder_alone(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "reward"
    shutil.copytree(chain["reward"], run)
    before = everything_in(tmp_path)
    words = [f"model.path={chain['sft']}", f"run.dir={run}", "--dry-run"]
    assert "dry run passed" in starter.run("reward", "--config", configs["reward"], *words)
    assert everything_in(tmp_path) == before


def test_a_dry_run_says_what_failed_and_leaves_nothing(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}/run", "--dry-run", "model.lora.targets=[없음]"]
    text = starter.run("sft", *words, status=1)
    assert "ModelError: model.lora.targets: LoRA targets match no module: 없음" in text
    assert "dry run passed" not in text
    assert files_below(tmp_path) == []


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


# Mistakes


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    path, number = changed(configs, "sft", "  micro_tokens: 256", "  micro_tokns: 256", tmp_path)
    text = starter.run("sft", "--config", path, f"run.dir={tmp_path}/run", status=1)
    assert f"ConfigError: {path}:{number}  train.micro_tokns" in text
    assert "train.micro_tokens" in text
    assert not (tmp_path / "run").exists()


def test_a_misspelt_override_is_named(starter: Starter, configs: dict[str, Path], tmp_path: Path) -> None:
    text = starter.run("sft", "--config", configs["sft"], f"run.dir={tmp_path}/run", "train.epoch=2", status=1)
    assert "ConfigError: " in text
    assert "train.epoch" in text
    assert "train.epochs" in text


@pytest.mark.parametrize(
    ("stage", "overrides", "key", "remedy"),
    [
        ("sft", ["model.path=runs/q/base/model"], "model.path", "rlhf base tiny --data demo:answers_train --out runs"),
        ("reward", ["model.path=runs/q/sft/model"], "model.path", "rlhf quickstart"),
        ("ppo", ["actor.path=runs/q/sft/model", "reward.path={reward}"], "actor.path", "rlhf quickstart"),
        ("ppo", ["actor.path={sft}", "reward.path=runs/q/reward/model"], "reward.path", "rlhf quickstart"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_what_makes_it(
    starter: Starter,
    configs: dict[str, Path],
    chain: dict[str, Path],
    tmp_path: Path,
    stage: str,
    overrides: list[str],
    key: str,
    remedy: str,
) -> None:
    named = [each.format(**chain) for each in overrides]
    text = starter.run(stage, "--config", configs[stage], f"run.dir={tmp_path}/run", *named, cwd=tmp_path, status=1)
    assert f"ModelError: {key}: no such folder: runs/q/" in text
    assert remedy in text
    assert "Traceback" not in text


@pytest.mark.parametrize("key", ["data.train", "data.eval"])
def test_a_data_file_cut_in_half_is_named_with_its_line(
    starter: Starter, configs: dict[str, Path], korean: Path, tmp_path: Path, key: str
) -> None:
    rows = [json.dumps({"prompt": f"{i}번 질문", "response": "네, 좋아요!"}, ensure_ascii=False) for i in range(6)]
    content = "\n".join(rows).encode()
    file = tmp_path / "cut.jsonl"
    file.write_bytes(content[: len(content) - len(rows[-1].encode()) // 2])
    text = starter.run("sft", "--config", configs["sft"], f"run.dir={tmp_path}/run", f"{key}={file}", status=1)
    assert f"DataError: {file}:6: " in text
    assert "write the file again" in text
    assert f"{file}:6" in read_json(tmp_path / "run" / "state.json")["reason"]


def test_an_sft_model_is_no_reward_model(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    words = [f"run.dir={tmp_path}/run", f"actor.path={chain['sft']}", f"reward.path={chain['sft']}/model"]
    text = starter.run("ppo", "--config", configs["ppo"], *words, status=1)
    assert f"ArtifactError: reward.path: {chain['sft']}/model was made by stage sft" in text
    assert "scripts/step2_reward.py" in text
    words = [f"run.dir={tmp_path}/run", f"actor.path={chain['sft']}", f"reward.path={chain['reward']}"]
    text = starter.run("ppo", "--config", configs["ppo"], *words, f"critic.path={chain['sft']}", status=1)
    assert f"ArtifactError: critic.path: {chain['sft']}/model was made by stage sft" in text


def test_a_warm_up_longer_than_the_run_allows_names_both_numbers(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}", "train.warmup_steps=3"]
    text = starter.run("sft", *words, status=1)
    assert "ConfigError: train.warmup_steps = 3: a warm-up of 3 steps in a run of 7 optimizer steps" in text
    assert "at most 30 % of the run: 2 steps" in text  # 0.3 * 7 = 2.1
    starter.run("sft", *words, "train.warmup_steps=2", "run.max_steps=1")


def test_lora_targets_that_match_nothing_are_named_with_those_there_are(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}", "model.lora.targets=[q_proj, query_key_value]"]
    text = starter.run("sft", *words, status=1)
    assert "ModelError: model.lora.targets: LoRA targets match no module: q_proj" in text
    assert "query_key_value (2)" in text  # two layers


# LoRA


def test_a_lora_run_leaves_its_adapter_beside_the_merged_model(
    starter: Starter, configs: dict[str, Path], tiny_neox: Path, tmp_path: Path
) -> None:
    words = [f"run.dir={tmp_path}", "model.lora.rank=2", "model.lora.targets=[query_key_value]", "run.max_steps=4"]
    starter.run("sft", "--config", configs["sft"], *words)
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 2  # A and B in each of two layers
    base = load_file(tiny_neox / "model.safetensors")
    merged = load_file(tmp_path / "model" / "model.safetensors")
    assert merged.keys() == base.keys()
    for name, weight in base.items():
        if not name.endswith("query_key_value.weight"):
            assert merged[name].equal(weight), name
            continue
        place = name.removesuffix(".weight")
        (low,) = [value for key, value in adapter.items() if place in key and "lora_A" in key]
        (high,) = [value for key, value in adapter.items() if place in key and "lora_B" in key]
        scale = 16 / 2  # alpha / rank
        assert (merged[name] - (weight + scale * high @ low)).abs().max() < 1e-6
        assert high.any()
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")


def test_a_killed_lora_run_goes_on_the_same(starter: Starter, configs: dict[str, Path], tmp_path: Path) -> None:
    """Dropout draws from the generators that a checkpoint holds; the frozen base is not in it."""
    words = ["--config", configs["sft"], "model.lora.rank=2", "model.lora.dropout=0.2"]
    starter.run("sft", *words, f"run.dir={tmp_path}/whole")
    fault = Fault("rlhf.train.sft:sft_step", 6)
    starter.run("sft", *words, f"run.dir={tmp_path}/killed", fault=fault, status=-signal.SIGKILL)
    starter.run("sft", *words, f"run.dir={tmp_path}/killed", "--resume", "auto")
    whole, killed = (everything_in(tmp_path / name / "adapter") for name in ("whole", "killed"))
    assert killed == whole
    assert everything_in(tmp_path / "killed" / "model") == everything_in(tmp_path / "whole" / "model")
