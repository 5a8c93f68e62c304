"""A run goes on with other ranks and another ZeRO stage: from 1 to 2 to 1, and from 0 to 2 to 3 to 1 to 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.distributed.conftest import Outcome
from tests.distributed.problem import Problem
from tests.distributed.workers.reshaping import KINDS
from tests.support.launcher import run_alone, run_deepspeed

WORKER = Path(__file__).parent / "workers" / "reshaping.py"
STEPS = [(kind, link) for kind, links in KINDS.items() for link in range(1, len(links))]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, problem: Problem, paths: dict[str, Path]) -> Outcome:
    """What three starts found, by `KIND link N`; `KIND whole N` is of the run that was never handed over."""
    root = tmp_path_factory.mktemp("chain")
    named = {role: str(path) for role, path in paths.items()}
    numbers: dict[str, Any] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    for number, ranks in enumerate((1, 2, 1)):
        out, given = root / f"out{number}", root / f"inputs{number}.pt"
        out.mkdir()
        torch.save({"problem": problem, "paths": named, "root": str(root), "begins": number == 0}, given)
        if ranks == 1:
            run_alone(WORKER, given, out)
        else:
            run_deepspeed(WORKER, given, out, ranks=ranks)
        numbers |= json.loads((out / "numbers.json").read_text(encoding="utf-8"))
        weights |= torch.load(out / "weights.pt", weights_only=True)
    return Outcome(numbers, weights)


@pytest.mark.parametrize(("kind", "link"), STEPS)
def test_what_is_loaded_is_what_was_saved(chain: Outcome, kind: str, link: int) -> None:
    """Weights and moments, bit for bit, as DeepSpeed's own getters put them together on both sides."""
    before = chain.weights[f"{kind} whole 0" if link == 1 else f"{kind} link {link - 1}"]
    loaded = chain.weights[f"{kind} loaded {link}"]
    assert loaded.keys() == before.keys()
    assert any(bool(value.any()) for name, value in before.items() if name.endswith("exp_avg_sq"))
    for name, value in before.items():
        assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize(("kind", "link"), STEPS)
def test_each_step_is_that_of_the_run_that_was_not_handed_over(chain: Outcome, kind: str, link: int) -> None:
    ours, whole = chain.numbers[f"{kind} link {link}"], chain.numbers[f"{kind} whole {link}"]
    assert ours == pytest.approx(whole, rel=1e-5, abs=1e-6)
    require_close(chain.weights[f"{kind} link {link}"], chain.weights[f"{kind} whole {link}"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_goes_on_too(chain: Outcome, kind: str) -> None:
    last = len(KINDS[kind]) - 1
    average = chain.weights[f"{kind} average whole {last}"]
    assert any(bool((value - average[name]).abs().max() > 1e-3) for name, value in live_weights(chain, kind, last))
    require_close(chain.weights[f"{kind} average link {last}"], average)


def test_the_change_is_said(chain: Outcome) -> None:
    changes = [chain.numbers[f"full change {link}"] for link in range(1, len(KINDS["full"]))]
    assert changes == [
        "from 1 rank at ZeRO 0 in float32 to 2 ranks at ZeRO 2 in float32",
        "from 2 ranks at ZeRO 2 in float32 to 2 ranks at ZeRO 3 in float32",
        "from 2 ranks at ZeRO 3 in float32 to 1 rank at ZeRO 1 in float32",
        "from 1 rank at ZeRO 1 in float32 to 1 rank at ZeRO 0 in float32",
    ]


def live_weights(chain: Outcome, kind: str, link: int) -> list[tuple[str, Tensor]]:
    """Trained weights of a step by their name in the Hugging Face model; of roles the actor's."""
    prefix = "language.model." if kind == "roles" else "model."
    found = [(name, value) for name, value in chain.weights[f"{kind} whole {link}"].items() if name.endswith(" weight")]
    chosen = [(name, value) for name, value in found if kind != "roles" or ".actor." in name]
    return [(name.removeprefix(prefix).removesuffix(" weight"), value) for name, value in chosen]


def require_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
