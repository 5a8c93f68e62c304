"""What fits, the cheapest change, and the refusal before models load."""

import re

import pytest
import torch
from transformers import GPTNeoXConfig

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import SftConfig
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError
from rlhf.plan.batches import SHORTEST
from rlhf.plan.fit import changed, cheapest_fit, check_fits, possible_changes, ranks_that_fit
from rlhf.plan.memory import GIB
from rlhf.plan.roles import plan_memory, stage_shapes
from rlhf.plan.states import Placement
from rlhf.train.run import memory_check

BIG = "EleutherAI/polyglot-ko-1.3b"


def sft(**model):
    return SftConfig.model_validate({"model": {"path": BIG, "dtype": "bfloat16", **model}, "data": {"max_length": 512}})


def ppo(**more):
    model = {"dtype": "bfloat16", "lora": {"rank": 16}}
    return PpoConfig.model_validate({"model": model, "actor": {"path": BIG}, "reward": {"path": BIG}, **more})


def test_a_run_that_cannot_fit_is_refused_with_what_would():
    with pytest.raises(ConfigError, match=r"GiB are free") as caught:
        check_fits(sft(), 1, 8 * GIB, device="gpu")

    words = caught.value.fix.split(" (")[0]
    content = SftConfig.model_validate(sft().model_dump())
    options = [change for change in possible_changes(content, Placement(1, "gpu", "bfloat16")) if change.text in words]
    fixed = changed(content, tuple(options))
    assert " ".join(change.text for change in options) == words
    assert check_fits(fixed, 1, 8 * GIB, device="gpu").peak <= 8 * GIB


def test_a_run_that_fits_is_let_through():
    plan = check_fits(sft(), 1, 80 * GIB, device="gpu")
    assert 20 * 1.3e9 < plan.peak < 80 * GIB  # ZeRO 0 in half precision: 20 bytes a parameter at least


def test_what_may_fit_within_the_plans_error_is_not_refused():
    peak = plan_memory(sft(), stage_shapes(sft()), Placement(1, "gpu", "bfloat16"), SHORTEST).peak

    assert check_fits(sft(), 1, peak * 0.86, device="gpu") is not None
    with pytest.raises(ConfigError):
        check_fits(sft(), 1, peak * 0.84, device="gpu")


def test_what_cannot_be_planned_is_not_refused():
    unknown = SftConfig.model_validate({"model": {"path": "someone/some-model"}})
    assert check_fits(unknown, 1, 1.0) is None


def test_the_cheapest_change_is_the_least_that_is_enough():
    config, placement = sft(), Placement(1, "gpu", "bfloat16")
    shapes = stage_shapes(config)
    peak = plan_memory(config, shapes, placement).peak

    slightly = cheapest_fit(config, shapes, placement, peak - 1)
    assert [change.cost for change in slightly.changes] == [
        min(
            change.cost
            for change in possible_changes(config, placement)
            if plan_memory(changed(config, (change,)), shapes, placement).peak < peak
        )
    ]
    assert cheapest_fit(config, shapes, placement, 1.0) is None


def test_more_ranks_divide_the_optimizer():
    config = SftConfig.model_validate(sft().model_dump() | {"deepspeed": {"zero_stage": 2}})
    shapes, placement = stage_shapes(config), Placement(1, "gpu", "bfloat16")
    two = plan_memory(config, shapes, Placement(2, "gpu", "bfloat16")).peak

    assert two < plan_memory(config, shapes, placement).peak
    assert ranks_that_fit(config, shapes, placement, two) == 2
    assert ranks_that_fit(config, shapes, placement, 1.0) is None


def test_a_shared_backbone_is_held_once():
    separate, shared = ppo(), ppo(ppo={"roles": "shared"})
    placement = Placement(1, "gpu", "bfloat16")
    peaks = [plan_memory(each, stage_shapes(each), placement).peak for each in (separate, shared)]

    assert peaks[0] - peaks[1] > 3 * 2 * 1.2e9  # three more copies of 1.3e9 weights in two bytes


def test_an_offloaded_reference_leaves_the_card():
    there, away = ppo(), ppo(reference={"offload": True})
    placement = Placement(1, "gpu", "bfloat16")
    plans = [plan_memory(each, stage_shapes(each), placement) for each in (there, away)]
    phases = ["actor: optimizer step", "reference: forward pass"]
    step, asked = ([plan.phase_bytes(phase) for plan in plans] for phase in phases)

    assert step[0] - step[1] == pytest.approx(1.04 * 2 * stage_shapes(there)["reference"].parameters)
    assert asked[0] == asked[1]
    shape = stage_shapes(there)["reference"]
    assert 2 * shape.parameters < plans[1].host_bytes < 1.1 * 2 * shape.parameters  # in blocks of a power of two


@pytest.fixture
def tiny_folder(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    GPTNeoXConfig(vocab_size=96, **sizes).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_training_start_reads_the_memory_that_is_free(tiny_folder, monkeypatch):
    ranks, said = Ranks(0, 0, 1, torch.device("cpu")), []
    config = SftConfig.model_validate({"model": {"path": tiny_folder}})
    memory_check.require_memory(config, ranks, said.append)
    assert len(said) == 1
    assert re.fullmatch(r"memory: about 0\.\d GiB per rank planned, [\d.]+ GiB free", said[0])

    full = check_fits(config, 1, GIB).peak
    monkeypatch.setattr(memory_check, "free_memory", lambda device: full - 2**20)
    memory_check.require_memory(config, ranks, said.append)
    assert said[-1].startswith("warning: with full rows it may run out")

    monkeypatch.setattr(memory_check, "free_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match="needs at least"):
        memory_check.require_memory(config, ranks, said.append)


@pytest.mark.parametrize(("wanted", "lines"), [("warn", 1), ("off", 0)])
def test_the_refusal_can_be_turned_down(wanted, lines, tiny_folder, monkeypatch):
    monkeypatch.setattr(memory_check, "free_memory", lambda device: 1000)
    said = []
    config = SftConfig.model_validate({"model": {"path": tiny_folder}, "run": {"memory_check": wanted}})
    memory_check.require_memory(config, Ranks(0, 0, 1, torch.device("cpu")), said.append)
    assert len(said) == lines


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"deepspeed": {"zero_stage": 2, "offload_optimizer": True}}, "deepspeed.offload_optimizer or"),
        ({"reference": {"offload": True}}, "reference.offload"),
    ],
)
def test_what_is_offloaded_must_fit_into_cpu_memory(changes, keys, monkeypatch):
    """On a GPU with room for everything; the plan of a rank's CPU memory against its share of the node's."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(memory_check, "total_memory", lambda device: 200 * GIB)
    config, said = ppo(**changes), []
    needed = plan_memory(config, stage_shapes(config), Placement(2, "gpu", "bfloat16")).host_bytes

    def free(host):
        return lambda device: host if device.type == "cpu" else 190 * GIB

    ranks = Ranks(0, 0, 2, torch.device("cuda"))
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, value])
    monkeypatch.setattr(memory_check, "free_memory", free(int(2 * needed * 0.86)))
    memory_check.require_memory(config, ranks, said.append)
    assert f"{needed / GIB:.1f} GiB of CPU memory planned" in said[0]
    monkeypatch.setattr(memory_check, "free_memory", free(int(2 * needed * 0.84)))
    with pytest.raises(ConfigError, match="of CPU memory") as caught:
        memory_check.require_memory(config, ranks, said.append)
    assert keys in caught.value.where
