"""Roles on one backbone under DeepSpeed: they learn as separate models do, apart from one another, and resume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.distributed.conftest import Outcome
from tests.distributed.problem import STEPS
from tests.distributed.workers.sharing import CRITIC, OPTIMIZER, STAGES, STILL

STILL_NAMES = [f"{kind} zero{stage}" for kind, stage in STILL]


@pytest.fixture(scope="module", params=["one_rank", "two_ranks"])
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return request.getfixturevalue(request.param)


def of_role(weights: dict[str, Tensor], role: str) -> dict[str, Tensor]:
    found = {name: value for name, value in weights.items() if name.startswith(role)}
    assert found
    return found


def alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def test_both_norms_are_clipped_and_differ(one_rank: Outcome) -> None:
    """Otherwise one clip over both roles, or none, would pass below."""
    for step in one_rank.numbers["norms separate zero0"]:
        assert step["actor"] > float(OPTIMIZER["max_grad_norm"])
        assert step["critic"] > 4 * step["actor"] > float(CRITIC["max_grad_norm"])


@pytest.mark.parametrize("stage", STAGES)
def test_shared_roles_learn_what_separate_ones_do(outcome: Outcome, one_rank: Outcome, stage: int) -> None:
    """Two models on one rank at ZeRO 0 are the measure, whatever the ranks and the stage."""
    found, expected = outcome.weights[f"roles shared zero{stage}"], one_rank.weights["roles separate zero0"]
    start = one_rank.weights["start separate zero0"]
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)
        assert float((weight - start[name]).abs().max()) > 1e-3, name
    norms = outcome.numbers[f"norms shared zero{stage}"]
    assert len(norms) == STEPS
    for ours, plain in zip(norms, one_rank.numbers["norms separate zero0"], strict=True):
        assert ours == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("name", STILL_NAMES)
def test_a_role_without_a_gradient_or_a_rate_does_not_move(outcome: Outcome, name: str) -> None:
    """Nor do its moments: its first update is the same later as at once."""
    assert outcome.numbers[f"applied {name}"] == {"actor": False, "critic": True}
    first = outcome.numbers["norms shared zero0"][0]["actor"]  # no update had changed the actor when it was dropped
    assert outcome.numbers[f"dropped {name}"]["actor"] == pytest.approx(first, rel=1e-5)
    start, idle, unnamed, late, at_once = (
        outcome.weights[f"{when} {name}"] for when in ("start", "no gradient", "not named", "late", "at once")
    )
    for weights in (idle, unnamed):
        assert alike(of_role(weights, "actor"), of_role(start, "actor"))
    assert not alike(of_role(idle, "critic"), of_role(start, "critic"))
    assert not alike(of_role(unnamed, "critic"), of_role(idle, "critic"))
    assert alike(of_role(late, "critic"), of_role(unnamed, "critic"))
    assert alike(of_role(late, "actor"), of_role(at_once, "actor"))
    assert not alike(of_role(late, "actor"), of_role(start, "actor"))


@pytest.mark.parametrize("stage", STAGES)
def test_loaded_roles_repeat_the_uninterrupted_ones(engine: Outcome, stage: int) -> None:
    """Bit for bit, the actor's average too; the frozen backbone is not in the checkpoint."""
    name = f"roles zero{stage}"
    assert alike(engine.weights[f"resumed {name}"], engine.weights[f"uninterrupted {name}"])
    average = engine.weights[f"average of resumed {name}"]
    assert alike(average, engine.weights[f"average of uninterrupted {name}"])
    assert not alike(of_role(average, "actor"), of_role(engine.weights[f"resumed {name}"], "actor"))
    saved = engine.weights[f"saved {name}"]
    assert saved
    assert all(".actor." in key or ".critic." in key for key in saved), sorted(saved)
