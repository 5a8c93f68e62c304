"""One problem, one answer: whatever the number of ranks, the ZeRO stage and the size of a micro-batch.

Expected numbers come from tests/distributed/reference.py: plain padded Hugging Face loops without the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.distributed import reference
from tests.distributed.conftest import Outcome
from tests.distributed.preferences import LOSSES, preferences
from tests.distributed.problem import EMA_DECAY, GROUP, NUM_GROUPS, STEPS, TEMPERATURE, Problem

# Losses and norms are compared at 1e-5 of their size; margins and KL are differences that cancel, hence `abs`.
RELATIVE, ABSOLUTE = 1e-5, 2e-6
SIZES = ("large", "small")
POINT = "preference/reference_point"


@pytest.fixture(scope="module", params=["one_rank", "two_ranks"])
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def sft_traces(paths: dict[str, Path], problem: Problem) -> dict[str, reference.Trace]:
    return {name: reference.sft(paths[name], problem.demonstrations) for name in ("neox", "llama")}


@pytest.fixture(scope="module")
def reward_trace(paths: dict[str, Path], problem: Problem) -> reference.Trace:
    return reference.reward(paths["reward"], problem.rankings)


@pytest.fixture(scope="module")
def preference_traces(paths: dict[str, Path], problem: Problem) -> dict[str, reference.Trace]:
    return {loss: preferences(paths["neox"], problem.rankings, loss) for loss in LOSSES}


@pytest.fixture(scope="module")
def ppo_trace(paths: dict[str, Path], problem: Problem) -> reference.Trace:
    return reference.ppo(paths["neox"], paths["reward"], problem.samples)


@pytest.fixture(scope="module")
def critic_free_trace(paths: dict[str, Path], problem: Problem) -> reference.Trace:
    folders = (paths["neox"], paths["reference"], paths["scorer"])
    return reference.critic_free(*folders, problem.samples[0][: NUM_GROUPS * GROUP], problem.demonstrations)


def test_the_problem_is_hard_enough(one_rank: Outcome, two_ranks: Outcome) -> None:
    """Several micro-batches a rank, and a step in which a rank has nothing to do."""
    assert [step["rows"] for step in one_rank.numbers["rows large"]] == [[1]] * STEPS
    assert min(two_ranks.numbers["rows small"][0]["rows"]) >= 4
    assert [step["idle"] for step in two_ranks.numbers["rows large"]] == [0, 0, 1]
    assert two_ranks.numbers["rows small"][2] == {"rows": [1, 1], "idle": 1}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["neox", "llama"])
def test_sft_steps_equal_a_plain_loop(
    outcome: Outcome,
    sft_traces: dict[str, reference.Trace],
    paths: dict[str, Path],
    name: str,
    stage: int,
    size: str,
) -> None:
    run = f"sft {name} zero{stage} {size}"
    assert any(step["grad_norm"] > 1.0 for step in sft_traces[name].metrics)  # clipping at 0.5 bites
    require_same_metrics(outcome, run, sft_traces[name].metrics)
    require_same_weights(outcome, f"{run} model", sft_traces[name].weights["model"], start=paths[name])


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_an_average_is_that_of_the_weights_of_each_step(outcome: Outcome, paths: dict[str, Path], stage: int) -> None:
    """0.1 of the start stays at the first update ((1 + 0) / (10 + 0)), then the decay of 0.15."""
    expected = on_disk(paths["neox"])
    for step in range(1, STEPS + 1):
        live, decay = outcome.weights[f"options zero{stage} live {step}"], 0.1 if step == 1 else EMA_DECAY
        expected = {name: decay * expected[name] + (1 - decay) * weight for name, weight in live.items()}
        found = outcome.weights[f"options zero{stage} average {step}"]
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)
        moved = max(float((found[name] - live[name]).abs().max()) for name in live)
        assert moved > 1e-4  # an average that is the live weights would pass too


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_noise_averages_and_groups_are_alike_everywhere(
    outcome: Outcome, one_rank: Outcome, paths: dict[str, Path], stage: int
) -> None:
    """One rank at ZeRO 0 is the measure; what each of the three does is tested apart."""
    found, expected = outcome.numbers[f"options zero{stage}"], one_rank.numbers["options zero0"]
    for step, (ours, plain) in enumerate(zip(found, expected, strict=True), 1):
        assert ours == pytest.approx(plain, rel=RELATIVE, abs=ABSOLUTE), f"step {step}"
    last = f"average {STEPS}"
    wanted = one_rank.weights[f"options zero0 {last}"]
    require_same_weights(outcome, f"options zero{stage} {last}", wanted, start=paths["neox"])
    start = on_disk(paths["neox"])
    moved = {name: float((weight - start[name]).abs().max()) for name, weight in wanted.items()}
    assert moved.pop("gpt_neox.embed_in.weight") < 1e-6  # a millionth of the rate
    assert min(moved.values()) > 1e-4
    assert found[0]["loss"] != pytest.approx(one_rank.numbers["sft neox zero0 small"][0]["loss"], rel=1e-4)  # noise


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_reward_steps_equal_a_plain_loop(
    outcome: Outcome, reward_trace: reference.Trace, paths: dict[str, Path], stage: int, size: str
) -> None:
    run = f"reward zero{stage} {size}"
    require_same_metrics(outcome, run, reward_trace.metrics)
    require_same_weights(outcome, f"{run} model", reward_trace.weights["model"], start=paths["reward"])


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_preference_steps_equal_a_plain_loop(
    outcome: Outcome, preference_traces: dict[str, reference.Trace], paths: dict[str, Path], loss: str, stage: int
) -> None:
    """The plain loop has a second model for the reference; here it is the model before its first step."""
    run, expected = f"{loss} zero{stage}", [dict(each) for each in preference_traces[loss].metrics]
    points = [
        (each.pop(POINT, 0.0), found.get(POINT, 0.0))
        for each, found in zip(expected, outcome.numbers[run], strict=True)
    ]
    assert [found for _, found in points] == pytest.approx(
        [wanted for wanted, _ in points], abs=2e-5
    )  # of sums near 50
    assert (max(points)[0] > 0.1) is (loss == "kto")
    require_same_metrics(outcome, run, expected)
    require_same_weights(outcome, f"{run} model", preference_traces[loss].weights["model"], start=paths["neox"])
    in_place, moved = outcome.numbers[f"start {run}"]
    assert in_place == 0.0
    assert moved > 0.1  # the weights that returned are the trained ones


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_ppo_minibatches_equal_a_plain_loop(
    outcome: Outcome, ppo_trace: reference.Trace, paths: dict[str, Path], stage: int, size: str
) -> None:
    run = f"ppo zero{stage} {size}"
    assert 0 < ppo_trace.metrics[0]["policy/clip_fraction"] < 1
    assert 0 < ppo_trace.metrics[0]["value/clip_fraction"] < 1
    require_same_metrics(outcome, run, ppo_trace.metrics)
    require_same_weights(outcome, f"{run} actor", ppo_trace.weights["actor"], start=paths["neox"])
    require_same_weights(outcome, f"{run} critic", ppo_trace.weights["critic"], start=paths["reward"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_critic_free_minibatches_equal_a_plain_loop(
    outcome: Outcome, critic_free_trace: reference.Trace, paths: dict[str, Path], stage: int, size: str
) -> None:
    """The norm of the demonstrations' own gradient is taken before each: that moves nothing either."""
    run = f"critic-free zero{stage} {size}"
    assert critic_free_trace.metrics[0]["policy/ratio_max"] > 1.2  # clipping bites
    require_same_metrics(outcome, run, critic_free_trace.metrics)
    require_same_weights(outcome, f"{run} actor", critic_free_trace.weights["actor"], start=paths["neox"])


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_experience_equals_a_plain_computation(
    outcome: Outcome, problem: Problem, paths: dict[str, Path], stage: int
) -> None:
    expected = reference.experience(paths["reference"], paths["reward"], paths["scorer"], problem.answered)
    for found, wanted in zip(outcome.numbers[f"experience zero{stage}"], expected, strict=True):
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=RELATIVE, abs=1e-5), name  # numbers around 1


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_answers_are_the_same_wherever_they_are_drawn(one_rank: Outcome, two_ranks: Outcome, stage: int) -> None:
    alone, shared = (run.numbers[f"drawn experience zero{stage}"] for run in (one_rank, two_ranks))
    assert [each["response"] for each in shared] == [each["response"] for each in alone]
    assert [each["response"] for each in alone] == [
        each["response"] for each in one_rank.numbers["drawn experience zero0"]
    ]
    assert len({tuple(each["response"]) for each in alone}) == len(alone)


def test_logprobs_of_drawn_answers_are_the_models(two_ranks: Outcome, problem: Problem, paths: dict[str, Path]) -> None:
    model = reference.causal_lm(paths["neox"]).eval()
    for sample, drawn in zip(problem.answered, two_ranks.numbers["drawn experience zero3"], strict=True):
        ids = torch.tensor([[*sample.prompt.ids.tolist(), *drawn["response"]]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(sample.prompt.ids) - 1 : -1] / TEMPERATURE
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(drawn["response"])[:, None])[:, 0]
        assert drawn["logprobs"] == pytest.approx(chosen.tolist(), rel=RELATIVE, abs=1e-5)  # nats, up to about 10


def require_same_metrics(outcome: Outcome, run: str, expected: Sequence[dict[str, float]]) -> None:
    found = outcome.numbers[run]
    assert len(found) == len(expected) == STEPS
    for step, (ours, plain) in enumerate(zip(found, expected, strict=True), 1):
        chosen = {name: ours[name] for name in plain}
        assert chosen == pytest.approx(plain, rel=RELATIVE, abs=ABSOLUTE), f"{run}, step {step}"


def require_same_weights(outcome: Outcome, name: str, expected: dict[str, Tensor], *, start: Path) -> None:
    """How far training moved the weights is compared, not where they are: they moved by a hundredth of their size."""
    found, before = outcome.weights[name], on_disk(start)
    assert found.keys() == expected.keys()
    moved = torch.cat([(expected[key] - before[key]).flatten() for key in sorted(expected)])
    error = torch.cat([(found[key] - expected[key]).flatten() for key in sorted(expected)])
    assert float(error.norm()) <= RELATIVE * float(moved.norm())
    # One weight alone is stored to 1e-7 of its size, up to 1.2, and moved by 0.02: 1e-5 of that is half a unit.
    assert float(error.abs().max()) <= 1e-4 * float(moved.abs().max())


def on_disk(folder: Path) -> dict[str, Tensor]:
    """Weights as saved, under the names of the live model (GPT-NeoX's head is called embed_out on disk)."""
    saved = load_file(folder / "model.safetensors")
    return {name.replace("embed_out.", "lm_head."): weight for name, weight in saved.items()}
