"""What each estimator and each option of the reward makes of given scores and log-probabilities."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.packing import PackedRow
from rlhf.data.records import Message
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.moments import Moments
from rlhf.train.policy import experience as module
from rlhf.train.policy.experience import (
    Experience,
    draw_answers,
    gather_experience,
    read_logprobs,
    with_training_logprobs,
)
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample, response_mask
from tests.support.tables import EOS, ONE_RANK, VOCABULARY, SameTokenizer, sample

NOTHING = Moments()
UNIFORM = -math.log(VOCABULARY)


class Uniform:
    """A reference that gives each token 1/7."""

    ranks = ONE_RANK

    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        return TokenLogprobs(torch.full((len(row.positions),), UNIFORM), torch.zeros(len(row.positions)))


def experience(
    samples: list[Sample],
    scores: list[float],
    moments: Moments = NOTHING,
    *,
    data: Any = None,
    importance: Tensor | None = None,
    **ppo: Any,
) -> Experience:
    config = PpoConfig.model_validate(
        {"train": {"batch_size": 1}, "data": data or {}, "ppo": {"score_clip": None, "gamma": 1.0, **ppo}}
    )

    class Scorer(Uniform):
        def infer(self, row: PackedRow) -> Tensor:
            return torch.tensor(scores)

    class Worthless(Uniform):
        def infer(self, row: PackedRow) -> Tensor:
            return torch.zeros(len(row.positions))

    critic = Worthless() if config.ppo.estimator == "gae" else None
    roles: Any = Roles(Uniform(), critic, Uniform(), Scorer())  # type: ignore[arg-type]
    tokenizer = SameTokenizer()
    sources = RewardSources(config, ONE_RANK, (tokenizer, tokenizer), roles.reward)
    return gather_experience(samples, roles, sources, config, 0.1, moments, importance)


def of_length(*lengths: int, **given: Any) -> list[Sample]:
    """Answers of one length each, longest first so that the row keeps their order; drawn as the reference would."""
    return [sample([2], [5] * (length - 1) + [EOS], **given) for length in lengths]


def advantages_of(made: Experience) -> list[list[float]]:
    return [each.advantages.tolist() for each in made.samples]


def test_rloo_gives_every_token_of_an_answer_the_same() -> None:
    """Two prompts of two answers: 3 and 1 differ by 2, -4 and 0 by 4. No critic, no values."""
    made = experience(of_length(3, 2, 2, 1), [3.0, 1.0, -4.0, 0.0], estimator="rloo", samples_per_prompt=2)
    expected = [[2, 2, 2], [-2, -2], [-4, -4], [4]]
    assert advantages_of(made) == [pytest.approx(each, rel=1e-5) for each in expected]
    assert all(each.values is None for each in made.samples)
    assert "value/explained_variance" not in made.metrics
    # Deviations of two: 2 / sqrt(2) and 4 / sqrt(2), mean 3 / sqrt(2)
    assert made.metrics["objective/group_reward_std"] == pytest.approx(3 / math.sqrt(2))


def test_grpo_divides_by_the_deviation_of_the_group() -> None:
    """3 and 1: deviation sqrt(2), so 1 / sqrt(2) from their mean; equal scores give nothing."""
    made = experience(of_length(3, 2, 2, 1), [3.0, 1.0, 5.0, 5.0], estimator="grpo", samples_per_prompt=2)
    half = 1 / (math.sqrt(2) + 1e-4)
    expected = [[half] * 3, [-half] * 2, [0] * 2, [0]]
    assert advantages_of(made) == [pytest.approx(each, abs=1e-6) for each in expected]


def test_the_kl_of_a_whole_answer_counts_in_its_group() -> None:
    """1 nat over the reference on one of the first answer's tokens costs 0.1: 3 - 0.1 against 1."""
    (second,) = of_length(2)
    strayed = sample([2], [5, EOS], old_logprobs=np.asarray([UNIFORM + 1, UNIFORM], np.float32))
    made = experience([strayed, second], [3.0, 1.0], estimator="rloo", samples_per_prompt=2)
    assert advantages_of(made)[0] == pytest.approx([1.9, 1.9], rel=1e-5)
    # In the loss it leaves the reward alone, and is still reported.
    inside = experience(
        [strayed, second], [3.0, 1.0], estimator="rloo", kl_in="loss", kl_estimator="k3", samples_per_prompt=2
    )
    assert advantages_of(inside)[0] == pytest.approx([2, 2], rel=1e-5)
    assert inside.metrics["objective/kl"] == pytest.approx(0.5, rel=1e-5)  # nats a sequence, of 1 and 0


def test_reinforce_pp_is_the_whitened_return_with_kl_by_token() -> None:
    """Answers of 2 and 1 tokens, scores 3 and 1; 1 nat, so 0.1, on the first's first token.

    Returns 2.9, 3 and 1: mean 2.3, variance (0.36 + 0.49 + 1.69) / 3.
    """
    strayed = sample([2], [5, EOS], old_logprobs=np.asarray([UNIFORM + 1, UNIFORM], np.float32))
    made = experience([strayed, *of_length(1)], [3.0, 1.0], estimator="reinforce_pp")
    deviation = math.sqrt((0.36 + 0.49 + 1.69) / 3)
    expected = [[0.6 / deviation, 0.7 / deviation], [-1.3 / deviation]]
    assert advantages_of(made) == [pytest.approx(each, rel=1e-5) for each in expected]


def test_running_moments_put_scores_on_one_scale() -> None:
    """Scores 1 and 3 after two of mean 4 and squared deviations 2: mean 3, sum 2 + 2 + 2 * 2 * 4 / 4 = 8, deviation
    sqrt(2). Clipped at 1 after that: (1 - 3) / sqrt(2) is held at -1."""
    made = experience(
        of_length(2, 1),
        [1.0, 3.0],
        Moments(2, 4.0, 2.0),
        score_normalise="running",
        score_clip=1.0,
        lam=1.0,
        whiten_advantages=False,
    )
    assert made.moments == pytest.approx((4, 3.0, 8.0))
    assert advantages_of(made) == [pytest.approx([-1, -1]), pytest.approx([0], abs=1e-6)]
    assert made.metrics["objective/reward"] == 2.0  # what the sources said
    assert made.metrics["objective/score_mean"] == pytest.approx(3.0)
    assert made.metrics["objective/score_std"] == pytest.approx(math.sqrt(2))


def test_without_normalising_the_moments_stay() -> None:
    made = experience(of_length(2, 1), [1.0, 3.0], Moments(2, 4.0, 2.0))
    assert made.moments == (2, 4.0, 2.0)
    assert made.metrics["reward_by_source/model"] == 2.0


def test_reward_and_kl_are_reported_by_source_of_prompts() -> None:
    strayed = np.asarray([UNIFORM + 1, UNIFORM], np.float32)
    samples = [*of_length(3, source="chat"), sample([2], [5, EOS], source="qa", old_logprobs=strayed)]
    samples += of_length(1, source="chat")
    data = {"train": [{"path": "a", "name": "chat"}, {"path": "b", "name": "qa"}]}
    metrics = experience(samples, [1.0, 4.0, 2.0], data=data).metrics
    reported = {name: value for name, value in metrics.items() if name.startswith("prompts/")}
    assert reported == pytest.approx(
        {"prompts/chat/reward": 1.5, "prompts/chat/kl": 0, "prompts/qa/reward": 4, "prompts/qa/kl": 1}, abs=1e-6
    )
    alone = experience(samples, [1.0, 4.0, 2.0], data={"train": ["a"]}).metrics
    assert not [name for name in alone if name.startswith("prompts/")]


def test_answers_are_read_again_and_weighed() -> None:
    """The actor gives every token ln 1/7. An engine said twice, half and a tenth of that: ratios 1/2, 2 and 10,
    the last cut at 3."""
    drawn = replace(
        sample(prompt=(1, 2), response=(3, 4, EOS)),
        old_logprobs=np.float32([UNIFORM + math.log(2), UNIFORM - math.log(2), UNIFORM - math.log(10)]),
    )
    config = PpoConfig.model_validate(
        {"train": {"batch_size": 1}, "rollout": {"importance_cap": 3.0}, "ppo": {"whiten_advantages": False}}
    )

    roles: Any = Roles(Uniform(), None, Uniform(), None)  # type: ignore[arg-type]
    done, weights, gaps = with_training_logprobs([drawn], roles, config)
    np.testing.assert_allclose(done[0].old_logprobs, [UNIFORM] * 3, rtol=1e-6)
    assert weights.tolist() == [pytest.approx([0.5, 2.0, 3.0], rel=1e-6)]
    assert gaps["rollout/gap"] == pytest.approx((2 * math.log(2) + math.log(10)) / 3, rel=1e-5)
    assert gaps["rollout/gap_max"] == pytest.approx(math.log(10), rel=1e-5)


def test_advantages_are_multiplied_by_the_importance_of_their_token_after_whitening() -> None:
    """Answers of 2 and 1 tokens with scores 4 and 1 at their ends, values 0, lambda 1: returns 4, 4 and 1."""
    weights = torch.tensor([[0.5, 2.0], [3.0, 1.0]])
    plain = experience(of_length(2, 1), [4.0, 1.0], lam=1.0)
    weighed = experience(of_length(2, 1), [4.0, 1.0], lam=1.0, importance=weights)
    assert advantages_of(plain) == [pytest.approx([0.5**0.5] * 2, rel=1e-5), pytest.approx([-(2**0.5)], rel=1e-5)]
    expected = [[0.5 * 0.5**0.5, 2 * 0.5**0.5], [-3 * 2**0.5]]
    assert advantages_of(weighed) == [pytest.approx(each, rel=1e-5) for each in expected]
    assert [each.returns.tolist() for each in weighed.samples] == [[4, 4], [1]]  # the critic's targets are not weighed


def test_explained_variance_is_that_of_the_critic_over_the_tokens_of_all_answers() -> None:
    """A critic that says 0 leaves all of the variance of returns unexplained."""
    metrics = experience(of_length(2, 1), [4.0, 1.0], lam=1.0).metrics
    assert metrics["value/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["policy/entropy"] == pytest.approx(-UNIFORM, rel=1e-6)


def test_the_summary_of_an_iteration_by_hand() -> None:
    """Scores 1, 2 and 6; answers of 3, 2 and 2 tokens, the last without EOS and 1 nat from the reference."""
    strayed = np.asarray([UNIFORM + 1, UNIFORM], np.float32)
    samples = [*of_length(3, 2), sample([2], [5, 6], old_logprobs=strayed)]
    metrics = experience(samples, [1.0, 2.0, 6.0]).metrics
    expected = {"objective/reward": 3, "objective/reward_std": (14 / 3) ** 0.5, "objective/kl": 1 / 3}
    expected |= {"rollout/eos_rate": 2 / 3, "rollout/response_tokens": 7 / 3}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_gamma_discounts_returns_without_a_critic_too() -> None:
    """A score of 4 at the end of three tokens, gamma 0.5."""
    made = experience(of_length(3), [4.0], estimator="reinforce_pp", gamma=0.5, whiten_advantages=False)
    assert advantages_of(made) == [pytest.approx([1, 2, 4], rel=1e-6)]


def test_roles_are_read_at_the_sampling_temperature() -> None:
    seen: list[float] = []

    def logprobs(row: PackedRow, temperature: float) -> TokenLogprobs:
        seen.append(temperature)
        return Uniform().infer_logprobs(row, temperature)

    config = PpoConfig.model_validate({"train": {"batch_size": 1}, "sampling": {"temperature": 0.7}})
    samples = of_length(2, 1)
    table = read_logprobs(samples, response_mask(samples), ONE_RANK, config, logprobs)
    assert seen == [0.7]
    assert table.tolist() == [pytest.approx([UNIFORM, UNIFORM]), pytest.approx([UNIFORM, 0])]


def test_answers_to_one_prompt_have_random_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four answers this rank, the second of two, samples those at places 1 and 3."""
    seen: list[Any] = []

    class Rollout:
        def __init__(self, *_: Any) -> None: ...

        def generate(self, prompts: Any, streams: Any, sampling: Any) -> Any:
            seen.extend(streams)
            tokens = [np.asarray([place], np.int32) for *_, place in streams]
            return SimpleNamespace(tokens=tokens, logprobs=[np.zeros(1, np.float32)] * 2, finished=[True, False])

    monkeypatch.setattr(module, "TransformersRollout", Rollout)
    other = ([0, 2], Rollout().generate([], [(0, 0, 0, 0), (0, 0, 0, 2)], None))
    seen.clear()
    ranks = SimpleNamespace(rank=1, world_size=2, gather=lambda own: [other, own])
    policy: Any = SimpleNamespace(ranks=ranks, full_weights=nullcontext)
    prompts = [EncodedPrompt(np.asarray([2], np.int32), row, (Message("user", "질문"),)) for row in (7, 7, 8, 8)]
    tokenizer: Any = SimpleNamespace(eos_id=EOS, text=str)
    drawn = draw_answers(policy, tokenizer, prompts, PpoConfig.model_validate({"run": {"seed": 3}}), 5)
    assert seen == [(3, 5, 7, 1), (3, 5, 8, 3)]
    assert [int(each.response[0]) for each in drawn] == [0, 1, 2, 3]
    assert [each.prompt.row for each in drawn] == [7, 7, 8, 8]
    assert [each.finished for each in drawn] == [True, True, False, False]
