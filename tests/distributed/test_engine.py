"""Two ranks around their steps: generation with whole weights, checkpoints, and updates that must not happen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.distributed import reference
from tests.distributed.conftest import Outcome
from tests.distributed.problem import Problem

STAGES = [0, 1, 2, 3]


def test_the_all_reduce_is_proved_on_every_rank(engine: Outcome) -> None:
    assert engine.numbers["all-reduce"] == [["passed"] * 3] * 2  # float32, bfloat16, float16
    assert engine.numbers["lost rank"] == ["failed", "failed"]


def test_a_failed_proof_of_one_rank_ends_all_of_them(engine: Outcome) -> None:
    assert engine.numbers["failed proof"] == ["kernel is wrong on rank 1: off by 3; turn it"] * 2


def test_whole_weights_generate_as_a_plain_model_does(
    engine: Outcome, problem: Problem, paths: dict[str, Path]
) -> None:
    """The weights are those of the last update, not the ones training began with."""
    model = reference.causal_lm(paths["neox"]).eval()
    model.load_state_dict(engine.weights["before generation"])
    prompts = [sample.prompt.ids for sample in problem.answered]
    found = engine.numbers["generation"]
    assert found["answers"] == [reference.greedy_answer(model, prompt, 10) for prompt in prompts]
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(prompts[0]).long()[None]).logits[0, -1]
    assert found["logits"] == pytest.approx(logits.tolist(), rel=1e-5, abs=1e-5)


def test_training_goes_on_after_generation_as_if_there_had_been_none(engine: Outcome) -> None:
    assert engine.numbers["training after generation"] is True
    require_all_hooks(engine, "generation")
    require_identical(engine.weights["after generation"], engine.weights["after nothing"])


def test_training_goes_on_after_an_error_in_generation(engine: Outcome) -> None:
    assert engine.numbers["failure"] == "a prompt nobody can answer"
    assert engine.numbers["training after failure"] is True
    require_all_hooks(engine, "failure")
    require_identical(engine.weights["after failure"], engine.weights["after nothing"])


def test_generation_run_learnt_what_a_plain_loop_learns(
    engine: Outcome, problem: Problem, paths: dict[str, Path]
) -> None:
    """The three runs above could be alike and wrong."""
    expected = reference.sft(paths["neox"], problem.demonstrations).weights["model"]
    for name, weight in engine.weights["after generation"].items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*(f"zero{stage}" for stage in STAGES), "zero0 lora", "zero3 lora"])
def test_a_loaded_engine_repeats_the_uninterrupted_one(engine: Outcome, name: str) -> None:
    """Bit for bit: weights, their average, optimizer moments and step counts were restored."""
    assert engine.numbers[f"resumed {name}"] == engine.numbers[f"uninterrupted {name}"]
    require_identical(engine.weights[f"resumed {name}"], engine.weights[f"uninterrupted {name}"])
    assert not alike(engine.weights[f"resumed {name}"], engine.weights[f"saved {name}"])
    average = engine.weights[f"average of resumed {name}"]
    require_identical(average, engine.weights[f"average of uninterrupted {name}"])
    assert not alike(average, engine.weights[f"resumed {name}"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_loss_that_is_not_finite_stops_every_rank_before_the_update(engine: Outcome, stage: int) -> None:
    """One sequence of one rank gives NaN; the error names the step."""
    for message in engine.numbers[f"loss zero{stage}"]:
        assert "step 2: the loss is nan; the weights were not updated" in message
    require_identical(engine.weights[f"after loss zero{stage}"], engine.weights[f"before loss zero{stage}"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_gradient_that_is_not_finite_stops_every_rank_before_the_update(engine: Outcome, stage: int) -> None:
    """The loss is finite, and the gradient of one rank is NaN."""
    for message in engine.numbers[f"gradient zero{stage}"]:
        assert "update 2: the gradient norm is nan; the weights were not updated" in message
    require_identical(engine.weights[f"after gradient zero{stage}"], engine.weights[f"before gradient zero{stage}"])


@pytest.mark.parametrize("request_name", ["logits", "logprobs", "loss"])
def test_zero3_gathers_and_releases_every_weight_of_a_request(engine: Outcome, request_name: str) -> None:
    """Its hooks fire on the tensors that they find in arguments and answers; what they miss stays whole."""
    assert engine.numbers[f"whole after {request_name}"] == [0, 0]
    assert engine.numbers["unseen types"] is False  # DeepSpeed's note that it could not look into an answer


def require_all_hooks(engine: Outcome, name: str) -> None:
    """Numbers come out right without them too, but with the whole model in memory."""
    before, after = engine.numbers[f"hooks around {name}"]
    assert after == before > 0


def alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name].nan_to_num(7.0), expected[name].nan_to_num(7.0)) for name in expected)


def require_identical(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert alike(found, expected)
