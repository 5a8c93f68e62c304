"""vLLM's share of a card: planned whole, and refused by the name of its key before a role is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlhf.config.ppo import PpoConfig
from rlhf.errors import ConfigError
from rlhf.plan.engine_share import require_engine_share, require_room_for_engine
from rlhf.plan.fit import check_fits
from rlhf.plan.memory import GIB
from rlhf.plan.roles import plan_memory, stage_shapes
from rlhf.plan.states import Placement

BASE = "EleutherAI/polyglot-ko-1.3b"  # 1.33e9 parameters: 2.48 GiB in two bytes
CARD = 40 * GIB


def config(share: float, *, backend: str = "vllm", devices: Sequence[int] = (), **rollout: Any) -> PpoConfig:
    return PpoConfig.model_validate(
        {
            "model": {"path": BASE, "dtype": "bfloat16", "lora": {"rank": 8}, "gradient_checkpointing": True},
            "deepspeed": {"zero_stage": 2},
            "actor": {"path": BASE},
            "reward": {"path": BASE},
            "sampling": {"max_prompt_tokens": 256, "max_new_tokens": 256, "batch_size": 16},
            "rollout": {"backend": backend, "vllm": {"gpu_memory": share, "devices": list(devices)}, **rollout},
        }
    )


def rollout_parts(share: float, card: float) -> dict[str, float]:
    given = config(share)
    plan = plan_memory(given, stage_shapes(given), Placement(1, "gpu", "bfloat16", card))
    return plan.by_role("rollout")["vllm"]


def test_the_engine_takes_its_whole_share() -> None:
    assert rollout_parts(0.3, CARD) == {"weights and cache": 12 * GIB}


def test_without_a_known_card_it_takes_what_it_needs_at_least() -> None:
    """Weights; 2 x 24 layers x 2,048 x 2 bytes for each of 512 tokens; 1 GiB of CUDA; a row of logits."""
    parameters = stage_shapes(config(0.3))["actor"].parameters
    expected = 2 * parameters + 2 * 24 * 2048 * 2 * 512 + GIB + 4 * 30080
    assert rollout_parts(0.3, 0.0) == {"weights and cache": expected}


@pytest.mark.parametrize(
    ("share", "free", "said", "fix"),
    [
        (0.05, CARD, "0.05 of a GPU is 2.0 GiB, and the actor's weights alone take 2.5 GiB", "raise it to 0.09"),
        (0.5, 19 * GIB, "0.5 of a GPU is 20.0 GiB, and 19.0 GiB are free", "lower it to 0.47"),
        (0.8, CARD, "the roles take 1", "lower it to 0."),
    ],
)
def test_a_share_that_cannot_be_had_is_refused_by_its_key(share: float, free: int, said: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fits(config(share), 1, free, device="gpu", card=CARD)
    assert caught.value.where == "rollout.vllm.gpu_memory"
    assert said in caught.value.problem
    assert caught.value.fix.startswith(fix)


def test_the_share_that_the_error_names_fits() -> None:
    with pytest.raises(ConfigError) as caught:
        check_fits(config(0.8), 1, CARD, device="gpu", card=CARD)
    room = float(caught.value.fix.split()[3].rstrip(","))
    assert check_fits(config(room), 1, CARD, device="gpu", card=CARD) is not None
    with pytest.raises(ConfigError):
        check_fits(config(room + 0.02), 1, CARD, device="gpu", card=CARD)


def test_other_rollouts_have_no_share() -> None:
    assert check_fits(config(0.8, backend="transformers"), 1, CARD, device="gpu", card=CARD) is not None


def test_a_captured_decode_step_keeps_its_activations_and_logits() -> None:
    """16 slots: the widest of 3 x 2,048 with 7 x 2,048 or 2 x 8,192 numbers in two bytes; three times the logits."""
    plans = []
    for graphs in ("auto", "off"):
        given = config(0.3, backend="transformers", cuda_graphs=graphs)
        plans.append(plan_memory(given, stage_shapes(given), Placement(1, "gpu", "bfloat16")))
    held, eager = (plan.by_role("rollout")["actor"] for plan in plans)
    assert held["CUDA graph"] == 16 * (3 * 2048 + 2 * 8192) * 2 + 3 * 4 * 16 * 30080
    assert "CUDA graph" not in eager


def test_an_engine_on_gpus_of_its_own_takes_nothing() -> None:
    given = config(0.3, devices=[1])
    shapes, placement = stage_shapes(given), Placement(1, "gpu", "bfloat16", CARD)
    require_engine_share(given, shapes, placement, 0.0)
    plan = plan_memory(given, shapes, placement)
    assert plan.by_role("rollout")["vllm"] == {"weights and cache": 0.0}
    require_room_for_engine(given, plan, 0.0)
