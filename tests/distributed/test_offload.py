"""Training with the optimizer's state in CPU memory (ZeRO-offload), on one rank and on two.

DeepSpeed's CPU optimizer runs here as it does beside a GPU. It rounds otherwise than torch's: in float32 its weights
are compared within 2e-6, where one update moves them by about 1e-2.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.distributed.conftest import Outcome, run_worker

pytestmark = pytest.mark.full
STAGES = [2, 3]


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Outcome:
    return run_worker("offload.py", inputs, tmp_path_factory.mktemp("offload"), ranks=request.param)


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 2e-6) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert (value - expected[name]).abs().max() <= atol, name


def moved(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return any(not torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("stage", STAGES)
def test_steps_are_those_of_the_resident_optimizer(outcome: Outcome, stage: int) -> None:
    """Several micro-batches a step, clipping, decay and the average of weights."""
    assert outcome.numbers[f"optimizer zero{stage} offloaded"] == "DeepSpeedCPUAdam"
    pairs = zip(
        outcome.numbers[f"steps zero{stage} offloaded"], outcome.numbers[f"steps zero{stage} resident"], strict=True
    )
    for found, expected in pairs:
        assert found == pytest.approx(expected, rel=2e-5)
    for kind in ("trained", "average"):
        require_close(outcome.weights[f"{kind} zero{stage} offloaded"], outcome.weights[f"{kind} zero{stage} resident"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropped_gradient_leaves_no_trace(outcome: Outcome, stage: int) -> None:
    norms = outcome.numbers[f"discarded zero{stage}"]
    assert all(norm > 0.1 for norm in norms)
    assert norms[0] != norms[1]
    found, expected = outcome.weights[f"with discards zero{stage}"], outcome.weights[f"without zero{stage}"]
    assert not moved(found, expected)


@pytest.mark.parametrize("stage", STAGES)
def test_a_parameter_without_a_gradient_is_not_updated_with_its_last_one(outcome: Outcome, stage: int) -> None:
    resident, offloaded = (outcome.weights[f"branches zero{stage} {kind}"] for kind in ("resident", "offloaded"))
    require_close(offloaded, resident)


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_repeats_the_uninterrupted_one(outcome: Outcome, stage: int) -> None:
    """Bit for bit where it stays offloaded."""
    expected = outcome.weights[f"uninterrupted zero{stage}"]
    assert outcome.numbers[f"resumed zero{stage}"] == outcome.numbers[f"uninterrupted zero{stage}"]
    assert not moved(outcome.weights[f"resumed zero{stage}"], expected)
    require_close(outcome.weights[f"resumed on the device zero{stage}"], expected)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_role_that_is_not_stepped_stays(outcome: Outcome, stage: int) -> None:
    """Value warm-up of shared roles, and a gradient measured and dropped (PPO-ptx); then both learn again."""
    resident, offloaded = f"zero{stage} resident", f"zero{stage} offloaded"
    assert outcome.numbers[f"actor still {offloaded}"] == [True, True, False]
    for found, expected in zip(
        outcome.numbers[f"norms {offloaded}"], outcome.numbers[f"norms {resident}"], strict=True
    ):
        assert found == pytest.approx(expected, rel=2e-5)
    require_close(outcome.weights[f"roles {offloaded}"], outcome.weights[f"roles {resident}"])


UNCHECKED = "bfloat16 unchecked"
KINDS = [
    f"{kind} zero{stage} {place}"
    for kind, place in (("float32", "offloaded"), (UNCHECKED, "resident"), (UNCHECKED, "offloaded"))
    for stage in (1, 2, 3)
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_not_finite_stops_every_rank_before_the_update(outcome: Outcome, kind: str) -> None:
    """Also where DeepSpeed is told not to look for it, and would step with a norm that is infinite."""
    roles = [f"role {kind}"] if kind.startswith(UNCHECKED) and "zero3" not in kind else []
    for name in (f"gradient {kind}", *roles):
        for message in outcome.numbers[name]:
            assert "update 2: the gradient norm is" in message
            assert "the weights were not updated" in message
        before, after = outcome.weights[f"before {name}"], outcome.weights[f"after {name}"]
        assert all(torch.isfinite(value).all() for value in before.values())
        assert not moved(before, after)
