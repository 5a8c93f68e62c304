"""A stage chooses its kernels, says so, and ends before its first model when one of them computes something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen
from transformers import GPTNeoXConfig, MistralConfig

import rlhf.doctor.proofs_head
import rlhf.doctor.proofs_quantization
import rlhf.errors
import rlhf.train.run.fast_paths
from rlhf.artifacts.checkpoint import CheckpointStore
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.schema import StageConfig
from rlhf.config.stages import STAGES
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.doctor.checks import Check
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, ModelError
from rlhf.models.attention_choice import KernelSupport
from rlhf.train.dpo import train_dpo
from rlhf.train.ppo import train_ppo
from rlhf.train.reward import train_reward
from rlhf.train.run.fast_paths import require_proved, start_fast_paths
from rlhf.train.run.lifecycle import write_manifest
from rlhf.train.run.run import Run
from rlhf.train.sft import train_sft
from tests.support.tables import ONE_RANK
from tests.support.varlen_kernel import varlen_by_definition

ROWS = {
    "sft": {"prompt": "안녕?", "response": "안녕하세요!"},
    "reward": {"prompt": "안녕?", "responses": ["안녕하세요!", "몰라."], "ranks": [1, 2]},
    "ppo": {"prompt": "안녕?"},
    "dpo": {"prompt": "안녕?", "responses": ["안녕하세요!", "몰라."], "ranks": [1, 2]},
}
TRAIN: dict[str, Callable[[Run[Any]], None]] = {
    "sft": train_sft,
    "reward": train_reward,
    "ppo": train_ppo,
    "dpo": train_dpo,
}


@pytest.fixture
def start(tmp_path: Path, tiny_llama: Path) -> Callable[..., Run[Any]]:
    """A run of a stage on two rows, opened without a process group."""

    def opened(stage: str, *words: str, ranks: Ranks = ONE_RANK) -> Run[Any]:
        file = tmp_path / f"{stage}.jsonl"
        file.write_text(f"{json.dumps(ROWS[stage], ensure_ascii=False)}\n" * 2, encoding="utf-8")
        common = [f"model.path={tiny_llama}", f"data.train={file}", "data.template=kullm", f"run.dir={tmp_path}/run"]
        config: StageConfig = load_config(STAGES[stage].config, None, [*common, "data.max_length=64", *words])
        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir(exist_ok=True)
        store = CheckpointStore(folder.checkpoints, ranks, keep_last=1)
        return Run(stage, config, ranks, folder, store, None, dry_run=False)

    return opened


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel runs, by its definition."""
    on = KernelSupport("cuda", (8, 0), frozenset({"scale", "window_size", "enable_gqa"}))
    monkeypatch.setattr(KernelSupport, "on", lambda _device: on)
    monkeypatch.setattr(varlen, "varlen_attn", varlen_by_definition)


def test_a_cpu_run_says_sdpa_and_why(
    start: Callable[..., Run[Any]],
    tiny_llama: Path,
    chat_tokenizer: ChatTokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = start("sft")
    start_fast_paths(run, {"model": str(tiny_llama)})
    said = "no varlen: it runs on a CUDA device, and this run computes on cpu"
    assert capsys.readouterr().err == f"attention of model: sdpa ({said})\n"
    write_manifest(run, chat_tokenizer, {}, {})
    settings = json.loads((run.folder.path / "manifest.json").read_text())["settings"]
    assert settings["attention"] == {"model": {"kind": "sdpa", "reason": said}}
    assert settings["cudnn_attention"] is False


@pytest.mark.usefixtures("with_gpu")
def test_roles_of_one_kernel_are_said_together(
    start: Callable[..., Run[Any]], tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tiny_llama has heads of 8 entries."""
    GPTNeoXConfig(hidden_size=64, num_attention_heads=4).save_pretrained(tmp_path / "sixteen")
    run = start("ppo", "model.dtype=bfloat16")
    start_fast_paths(run, {"actor": str(tiny_llama), "reference": str(tiny_llama), "reward": str(tmp_path / "sixteen")})
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "attention of actor, reference: varlen",
        "attention of reward: varlen",
    ]
    assert {role: choice["kind"] for role, choice in run.resolved["attention"].items()} == dict.fromkeys(
        ("actor", "reference", "reward"), "varlen"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_varlen_on_a_cpu_ends_a_stage_at_its_start(stage: str, start: Callable[..., Run[Any]]) -> None:
    words = ["reward.functions=[{path: rlhf.train.reward_functions:polite}]"] if stage == "ppo" else []
    with pytest.raises(ConfigError, match=r"model\.attention = varlen cannot run here: it runs on a CUDA device"):
        TRAIN[stage](start(stage, "model.attention=varlen", "model.dtype=bfloat16", *words))


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("stage", STAGES)
def test_a_wrong_attention_kernel_ends_a_stage_before_it_loads_a_model(
    stage: str, start: Callable[..., Run[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", partial(varlen_by_definition, shift=1))
    words = ["reward.functions=[{path: rlhf.train.reward_functions:polite}]"] if stage == "ppo" else []
    with pytest.raises(ModelError, match="varlen attention, 4/2 heads of 8 is wrong on rank 0") as caught:
        TRAIN[stage](start(stage, "model.dtype=bfloat16", *words))
    assert caught.value.fix == "set model.attention=sdpa"
    assert "tolerance 3e-02" in caught.value.problem


def test_a_wrong_head_ends_a_stage_before_it_loads_a_model(
    start: Callable[..., Run[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rlhf.doctor.proofs_head
    right = place.linear_cross_entropy
    monkeypatch.setattr(place, "linear_cross_entropy", lambda hidden, *rest, **more: right(hidden * 1.1, *rest, **more))
    with pytest.raises(ModelError, match="chunked head is wrong on rank 0") as caught:
        train_sft(start("sft"))
    assert caught.value.fix == "set model.head=whole"


def test_wrong_4_bit_weights_end_a_stage_before_it_loads_a_model(
    start: Callable[..., Run[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rlhf.doctor.proofs_quantization
    right = place.dequantized_weights
    halved = lambda model: {name: weight / 2 for name, weight in right(model).items()}  # noqa: E731
    monkeypatch.setattr(place, "dequantized_weights", halved)
    with pytest.raises(ModelError, match="4-bit weights is wrong on rank 0") as caught:
        train_reward(start("reward", "model.quantize=4bit", "model.lora.rank=2"))
    assert caught.value.fix == "set model.quantize=none"


def test_graphs_are_asked_of_the_machine_before_models_load(
    start: Callable[..., Run[Any]], tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"actor.path={tiny_llama}", "reward.functions=[{path: math:fsum}]"]
    with pytest.raises(ConfigError) as caught:
        train_ppo(start("ppo", *words, "rollout.cuda_graphs=on"))
    assert caught.value.where == "rollout.cuda_graphs"
    assert "decode steps" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "words", "proved"),
    [
        ("cpu", ["deepspeed.offload_optimizer=true", "deepspeed.zero_stage=2"], True),
        ("cuda", ["deepspeed.offload_optimizer=true", "deepspeed.zero_stage=2"], True),
        ("cuda", ["critic.deepspeed.offload_optimizer=true", "critic.deepspeed.zero_stage=2"], True),
        (
            "cuda",
            ["reward.deepspeed.offload_optimizer=true", "reward.deepspeed.zero_stage=2"],
            False,
        ),  # the reward has no optimizer
        ("cuda", [], False),
    ],
)
def test_the_cpu_optimizer_is_proved_where_it_steps(
    device: str,
    words: list[str],
    proved: bool,
    start: Callable[..., Run[Any]],
    tiny_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(KernelSupport, "on", lambda _device: KernelSupport("cpu", None, frozenset()))
    monkeypatch.setattr(rlhf.train.run.fast_paths, "stage_proofs", lambda *given: asked.append(given[-1]) or [])
    run = start("ppo", *words, ranks=replace(ONE_RANK, device=torch.device(device)))
    start_fast_paths(run, {"actor": str(tiny_llama)})
    assert [taken.cpu_optimizer for taken in asked] == [proved]


@pytest.mark.parametrize(
    ("stage", "words", "key"),
    [
        ("sft", [], "data.max_length"),
        ("ppo", ["sampling.max_prompt_tokens=30", "sampling.max_new_tokens=34"], "sampling.max_prompt_tokens"),
    ],
)
def test_a_window_shorter_than_the_rows_ends_a_stage_at_its_start(
    stage: str, words: list[str], key: str, start: Callable[..., Run[Any]], tmp_path: Path
) -> None:
    """The longest sequence has 64 tokens."""
    for window in (63, 64):
        MistralConfig(sliding_window=window).save_pretrained(tmp_path / str(window))
    start_fast_paths(start(stage, *words), {"model": str(tmp_path / "64")})
    with pytest.raises(ConfigError, match="64 tokens are longer than the model's sliding window of 63") as caught:
        start_fast_paths(start(stage, *words), {"model": str(tmp_path / "63")})
    assert caught.value.where == key


def test_checks_that_passed_or_were_skipped_raise_nothing(start: Callable[..., Run[Any]]) -> None:
    require_proved(start("sft"), [Check("a", "passed", ""), Check("b", "skipped", ""), Check("c", "info", "")])


def test_liger_without_its_package_is_refused_at_the_start(
    start: Callable[..., Run[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlhf.errors, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="liger"):
        train_sft(start("sft", "model.head=liger"))
