"""LLaMA-Factory and ms-swift as sides: their settings, best first, and the command of a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import LLAMA_FACTORY, SWIFT, Environment
from harness import CONDITIONS, ROOT, SIDES, free_port
from peer_material import SWIFT_PAIRS, SWIFT_PROMPTS, SWIFT_SFT, Rows

BATCH, MAX_LENGTH = 8, 256
LIMIT_S = 900.0
# As LLaMA-Factory's and ms-swift's own files for ZeRO 0.
ZERO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 0},
}
Arguments = dict[str, Any]
# What every run of every stage has alike, on both peers: transformers' names.
ALIKE: Arguments = {
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "lr_scheduler_type": "constant",
    "weight_decay": 0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "fp16": False,
    "seed": 17,
}


@dataclass(frozen=True)
class Task:
    """A stage on its rows, from the model folder `model`; PPO also has a reward model."""

    stage: str
    model: Path
    rows: Rows
    lr: float
    reward: Path | None = None
    new_tokens: int = 0
    iterations: int = 1


KILLED = 128 + 9  # status of a shell or launcher whose child was killed, as for memory


class PeerError(Exception):
    """A peer gave no result: it took too long, did other work, was killed, or failed as below."""


class PeerFailedError(PeerError):
    """A peer ended by itself without a result; the text is the last line it said."""


def grouped(peer: str) -> Arguments:
    """Batches of rows of like length."""
    return {"train_sampling_strategy": "group_by_length"} if peer == "lf" else {"group_by_length": True}


def modes(stage: str, peer: str) -> dict[str, Arguments]:
    """The settings of a peer among which the quickest is taken.

    ms-swift packs with flash attention alone; LLaMA-Factory cannot group pairs, whose rows have no `input_ids`.
    """
    found: dict[str, Arguments] = {"padded": {}}
    if stage == "sft" or (stage, peer) == ("reward", "swift"):
        found["grouped"] = grouped(peer)
    if stage == "sft" and peer == "lf":
        found["packed"] = {"packing": True}
    return found


@dataclass(frozen=True)
class Peer:
    """One of the two, in a scratch folder."""

    name: str
    title: str
    environment: Environment
    work: Path

    def arguments(self, task: Task, mode: str, *, engine: bool, rows_a_batch: int = BATCH) -> Arguments:
        """Everything that its entry point is given."""
        own = self._lf(task) if self.name == "lf" else self._swift(task)
        chosen = modes(task.stage, self.name)[mode]
        more: Arguments = {"per_device_train_batch_size": rows_a_batch, "learning_rate": task.lr}
        if engine:
            more["deepspeed"] = str(self._zero())
        return {**ALIKE, **own, **chosen, **more, "output_dir": str(self.work / f"{self.name}-out")}

    def _lf(self, task: Task) -> Arguments:
        stage = {"sft": "sft", "reward": "rm", "ppo": "ppo"}[task.stage]
        found: Arguments = {
            "model_name_or_path": str(task.model),
            "stage": stage,
            "do_train": True,
            "finetuning_type": "full",
            "dataset": stage,
            "dataset_dir": str(task.rows.folder),
            "template": "empty",
            "cutoff_len": MAX_LENGTH,
            "overwrite_cache": True,
            "disable_gradient_checkpointing": True,
            "flash_attn": "sdpa",
        }
        if task.stage == "ppo":
            found |= {"reward_model": str(task.reward), "reward_model_type": "full", "max_new_tokens": task.new_tokens}
        return found

    def _swift(self, task: Task) -> Arguments:
        file = {"sft": SWIFT_SFT, "reward": SWIFT_PAIRS, "ppo": SWIFT_PROMPTS}[task.stage]
        found: Arguments = {
            "model": str(task.model),
            "template": "dummy",
            "tuner_type": "full",
            "dataset": str(task.rows.folder / file),
            "torch_dtype": "float32",
            "max_length": MAX_LENGTH,
            "gradient_checkpointing": False,
            "split_dataset_ratio": 0,
            "warmup_ratio": 0,
        }
        if task.stage == "reward":
            found |= {"rlhf_type": "rm"}
        if task.stage == "ppo":
            found |= {
                "rlhf_type": "ppo",
                "reward_model": str(task.reward),
                "response_length": task.new_tokens,
                "max_completion_length": task.new_tokens,
                "temperature": 1.0,
                "num_ppo_epochs": 1,
                "num_mini_batches": 1,
                "kl_coef": 0.05,
                "missing_eos_penalty": 1.0,
                "num_sample_generations": 0,
                "num_train_epochs": task.iterations,
            }
        return found

    def _zero(self) -> Path:
        path = self.work / "zero0.json"
        path.write_text(json.dumps(ZERO), encoding="utf-8")
        return path

    def run(self, arguments: Mapping[str, Any], *, engine: bool, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Runs it to its end.

        Raises: PeerFailedError with the last line it said; PeerError where it does not end.
        """
        source, result = self.work / f"{self.name}.arguments.json", self.work / f"{self.name}.result.json"
        log = self.work / f"{self.name}.log"
        source.write_text(json.dumps(arguments), encoding="utf-8")
        result.unlink(missing_ok=True)
        shutil.rmtree(str(arguments["output_dir"]), ignore_errors=True)  # LLaMA-Factory refuses one that is not empty
        python = str(self.environment.python())
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "1", "--master_port", str(free_port())]
        command = [python, *(launcher if engine else []), str(SIDES / "peer.py"), self.name, str(result), str(source)]
        # ms-swift asks its hub for a folder's name otherwise, and waits for an answer.
        environment = {**os.environ, **CONDITIONS, "DS_ACCELERATOR": "cpu", "MODELSCOPE_OFFLINE": "1", "USE_HF": "1"}
        environment.pop("PYTHONPATH", None)
        environment["TORCH_EXTENSIONS_DIR"] = str(self.environment.folder / "extensions")  # DeepSpeed builds once in it
        with log.open("wb") as file:
            try:
                done = subprocess.run(
                    command, env=environment, cwd=ROOT, stdout=file, stderr=file, check=False, timeout=limit_s
                )
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"no end after {limit_s:.0f} s") from error
        if done.returncode or not result.is_file():
            killed = done.returncode < 0 or done.returncode == KILLED
            raise (PeerError if killed else PeerFailedError)(
                reason(log.read_text(encoding="utf-8", errors="replace"), done.returncode)
            )
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def reason(log: str, status: int) -> str:
    """The last line that names an error, without what the launcher says after it."""
    lines = [re.sub(r"^\[rank\d+\]: ", "", line).strip() for line in log.splitlines()]
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    own = [line for line in named if not line.startswith("torch.distributed.elastic")]
    return (own[-1] if own else f"status {status}").replace(str(Path.home()), "~")[:300]


def peers(work: Path) -> list[Peer]:
    return [
        Peer("lf", "LLaMA-Factory", LLAMA_FACTORY, work),
        Peer("swift", "ms-swift", SWIFT, work),
    ]
