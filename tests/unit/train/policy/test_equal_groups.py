"""What is left out of an iteration, and what is drawn in its place."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from rlhf.config.ppo import PpoConfig
from rlhf.errors import TrainingError
from rlhf.ops.moments import Moments
from rlhf.train.policy.equal_groups import KeptGroups, kept_groups
from rlhf.train.policy.experience import final_rewards
from rlhf.train.policy.reward_sources import Scores
from rlhf.train.policy.samples import Sample
from tests.support.tables import EOS, sample


def at_the_end(totals: Sequence[float], unweighted: Sequence[float]) -> Scores:
    """Scores that are paid at the last token."""
    return Scores(list(totals), {"model": list(unweighted)}, list(totals), [{} for _ in totals])


def kept(
    rewards: Sequence[tuple[float, float]], *, wanted: int, rounds: int
) -> tuple[KeptGroups, list[tuple[int, int]]]:
    """Groups of two answers with these rewards, prompt by prompt; and what was asked for in each round."""
    asked: list[tuple[int, int]] = []

    def draw(before: int, count: int) -> list[Sample]:
        asked.append((before, count))
        return [sample([prompt], [5, EOS]) for prompt in range(before, before + count) for _ in range(2)]

    def score(samples: Sequence[Sample]) -> Scores:
        first = int(samples[0].prompt.ids[0])
        found = [each for pair in rewards[first : first + len(samples) // 2] for each in pair]
        return at_the_end(found, [2 * each for each in found])

    found = kept_groups(draw, score, lambda samples, scores: scores.totals, wanted=wanted, answers=2, rounds=rounds)
    return found, asked


def test_equal_groups_are_replaced_by_the_prompts_that_come_next():
    rewards = [(1.0, 1.0), (0.0, 1.0), (2.0, 2.0), (3.0, 3.0), (5.0, 4.0), (6.0, 7.0), (9.0, 8.0)]
    found, asked = kept(rewards, wanted=3, rounds=3)
    assert asked == [(0, 3), (3, 2), (5, 1)]  # one of three is left, then one of two, then the last is found
    assert [int(each.prompt.ids[0]) for each in found.samples] == [1, 1, 4, 4, 5, 5]
    assert found.scores == at_the_end([0.0, 1.0, 5.0, 4.0, 6.0, 7.0], [0.0, 2.0, 10.0, 8.0, 12.0, 14.0])
    assert (found.num_prompts, found.num_tokens) == (6, 24)
    assert found.metrics == {
        "rollout/groups_dropped": 3.0,
        "rollout/groups_missing": 0.0,
        "rollout/refill_rounds": 2.0,
        "rollout/drawn_reward": pytest.approx((2 + 1 + 4 + 6 + 9 + 13) / 12),
    }


@pytest.mark.parametrize(("rounds", "missing", "prompts"), [(0, 2, 3), (1, 1, 5)])
def test_after_the_last_round_the_iteration_goes_on_with_what_it_has(rounds, missing, prompts):
    found, _ = kept([(1, 1), (0, 1), (2, 2), (3, 3), (5, 4)], wanted=3, rounds=rounds)
    assert found.metrics["rollout/groups_missing"] == missing
    assert found.metrics["rollout/refill_rounds"] == rounds
    assert found.num_prompts == prompts
    assert len(found.samples) == 2 * (3 - missing)


def test_an_iteration_without_any_group_stops_the_run():
    with pytest.raises(TrainingError, match=r"each of 6 prompts, of 3 rounds, .* same reward"):
        kept([(1.0, 1.0)] * 6, wanted=2, rounds=2)


def test_rewards_are_compared_as_they_are_paid():
    """Clipped at 5, less 1 without EOS, less 3 / 4 * 2 for three tokens beyond 8 - 4."""
    config = PpoConfig.model_validate(
        {
            "train": {"batch_size": 1},
            "sampling": {"max_new_tokens": 8},
            "ppo": {"score_clip": 5.0, "overlong_buffer": 4, "overlong_penalty": 2.0},
        }
    )
    samples = [sample([2], [5, EOS]), sample([2], [5, 5]), sample([2], [5] * 6 + [EOS])]
    paid = final_rewards(samples, at_the_end([9.0, 7.0, 5.0], [9.0, 7.0, 5.0]), Moments(), config)
    assert paid.tolist() == [5.0, 4.0, 3.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ppo": {"estimator": "gae"}}, r"ppo\.estimator = gae compares none"),
        ({"rollout": {"backend": "vllm", "overlap": 1}}, r"does not work with rollout\.overlap = 1"),
        ({"ppo": {"estimator": "grpo", "overlong_buffer": 129}}, r"ppo\.overlong_buffer = 129 is longer"),
    ],
)
def test_what_cannot_be_combined_is_refused(change, message):
    ppo = {"estimator": "rloo", "drop_equal_groups": True, **change.pop("ppo", {})}
    with pytest.raises(ValidationError, match=message):
        PpoConfig.model_validate({"ppo": ppo, **change})
    assert PpoConfig.model_validate(
        {"ppo": {"estimator": "grpo", "drop_equal_groups": True}, "rollout": {"backend": "vllm"}}
    )


def test_scores_of_kept_answers_keep_where_they_are_paid():
    scores = Scores([1.0, 2.0, 4.0], {"model": [1.5, 2.5, 4.5]}, [1.0, 0.5, 1.0], [{}, {3: 1.5}, {0: 1.0, 2: 2.0}])
    taken = scores.taken([2, 1])
    assert taken == Scores([4.0, 2.0], {"model": [4.5, 2.5]}, [1.0, 0.5], [{0: 1.0, 2: 2.0}, {3: 1.5}])
    first = scores.taken([0])
    assert first.joined(taken) == scores.taken([0, 2, 1])
    assert [end + sum(steps.values()) for end, steps in zip(taken.ends, taken.steps, strict=True)] == taken.totals
