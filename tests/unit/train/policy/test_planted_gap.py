"""An engine that draws from another distribution than the trainer's: the corrected policy gradient, by an exact sum.

The prompt ends in token 2. Engine and trainer agree on the first token of an answer: EOS or token 1, each 1/2. After
token 1 the trainer gives the tokens 0, 1, 2 the probabilities P, and the engine draws them with Q, in eighths: a batch
of 16 answers holds each as often as the engine draws it on average, so its gradient is the expected one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
from rlhf.data.packing import PackedRow
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.moments import Moments
from rlhf.train.policy.experience import gather_experience, with_training_logprobs
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.policy.update import minibatch
from tests.support.tables import ONE_RANK, SameTokenizer, Table, sample

P, Q = (0.5, 0.25, 0.25), (2 / 8, 5 / 8, 1 / 8)
SCORES = (2.0, 1.0, 1.0)  # of an answer 1, x by x; an answer of EOS alone has 1
AFTER_ONE = 1  # the row of the table that the engine has otherwise


class Bigram(Table):
    """Logits of the next token are a row of `values` [3, 3]; it keeps its gradient at a step."""

    def logprobs(self, row: PackedRow, temperature: float, *, with_entropy: bool = False) -> TokenLogprobs:
        last = row.input_ids.flatten()[row.positions]
        logs = (self.values[last] / temperature).log_softmax(-1)
        return TokenLogprobs(logs.gather(1, row.labels[:, None])[:, 0], torch.zeros(len(logs)))


def trainer() -> Bigram:
    return Bigram(torch.tensor([[1 / 3] * 3, P, (0.5, 0.5, 1e-9)]).log())


def answers(second: tuple[float, ...]) -> list[Sample]:
    """16 answers, those of two tokens first, with the log-probabilities of the distribution that drew them."""
    drawn = [token for token in range(3) for _ in range(round(8 * second[token]))]
    half = math.log(0.5)
    pairs = [
        sample([2], [1, token], old_logprobs=np.asarray([half, math.log(second[token])], np.float32)) for token in drawn
    ]
    return pairs + [sample([2], [0], old_logprobs=np.asarray([half], np.float32)) for _ in range(8)]


def gradient(second: tuple[float, ...], cap: float | None) -> Tensor:
    """The ascent direction of the trainer's logits after token 1, of answers drawn with `second`; None corrects
    nothing: the trainer's own log-probabilities and weights of 1."""
    config = PpoConfig.model_validate(
        {
            "train": {"batch_size": 16},
            "rollout": {"importance_cap": cap or 2.0},
            "sampling": {"temperature": 1.0},
            "ppo": {
                "estimator": "reinforce_pp",
                "rollout_size": 16,
                "gamma": 1.0,
                "score_clip": None,
                "missing_eos_penalty": 0.0,
                "whiten_advantages": False,
            },
        }
    )

    class Scorer(Table):
        def infer(self, row: PackedRow) -> Tensor:
            return torch.tensor([SCORES[int(each.response[1])] if len(each.response) == 2 else 1.0 for each in drawn])

    actor, drawn = trainer(), answers(second)
    roles: Any = Roles(actor, None, trainer(), Scorer(torch.zeros(1)))  # type: ignore[arg-type]
    samples, weights, _ = with_training_logprobs(drawn, roles, config)
    tokenizer = SameTokenizer()
    sources = RewardSources(config, ONE_RANK, (tokenizer, tokenizer), roles.reward)
    importance = None if cap is None else weights
    made = gather_experience(samples, roles, sources, config, 0.0, Moments(), importance)
    minibatch(roles, made.samples, config, {"actor": 1.0}, 1)
    assert actor.values.grad is not None
    return -actor.values.grad[AFTER_ONE]


def by_hand(weights: list[float]) -> Tensor:
    """Sum over x of 1/2 Q(x) w(x) SCORES(x) (onehot(x) - P), per token: 16 answers have 24 tokens, so 2/3 of that."""
    total = torch.zeros(3)
    for token, weight in enumerate(weights):
        total += 0.5 * Q[token] * weight * SCORES[token] * (torch.eye(3)[token] - torch.tensor(P))
    return total * 16 / 24


def test_the_corrected_gradient_is_that_of_the_trainers_own_answers() -> None:
    """The ratios P / Q are 2, .4 and 2: a cap of 2 truncates none."""
    own = gradient(P, None)
    assert own.tolist() == pytest.approx(by_hand([p / q for p, q in zip(P, Q, strict=True)]).tolist(), abs=1e-6)
    assert gradient(Q, 2.0).tolist() == pytest.approx(own.tolist(), abs=1e-6)


def test_without_the_correction_the_policy_moves_the_wrong_way() -> None:
    """Token 0 is worth most, and the engine draws it half as often as the trainer would."""
    assert gradient(Q, 2.0)[0] > 0.05
    wrong = gradient(Q, None)
    assert wrong[0] < -0.02
    assert wrong.tolist() == pytest.approx(by_hand([1, 1, 1]).tolist(), abs=1e-6)


def test_a_lower_cap_truncates_the_weights_of_the_rare_tokens() -> None:
    assert gradient(Q, 1.5).tolist() == pytest.approx(by_hand([1.5, 0.4, 1.5]).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, False),
        ({"model": {"dtype": "bfloat16"}}, True),
        ({"model": {"dtype": "float16"}}, True),
        ({"model": {"dtype": "bfloat16"}, "rollout": {"recompute_logprobs": False}}, False),
        ({"rollout": {"recompute_logprobs": True}}, True),
        ({"rollout": {"backend": "vllm"}}, True),
    ],
)
def test_what_draws_otherwise_than_the_trainer_reads_is_corrected(words: dict[str, Any], expected: bool) -> None:
    assert PpoConfig.model_validate(words).recomputes_logprobs == expected


def test_log_probabilities_of_another_engine_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="those of another engine"):
        PpoConfig.model_validate({"rollout": {"backend": "vllm", "recompute_logprobs": False}})


def test_the_gap_is_the_mean_over_the_tokens_of_answers() -> None:
    """|ln P / Q| of the 8 second tokens, over 24 tokens: padding counts for nothing."""
    config = PpoConfig.model_validate({"train": {"batch_size": 16}, "sampling": {"temperature": 1.0}})
    roles: Any = Roles(trainer(), None, trainer(), trainer())  # type: ignore[arg-type]
    _, weights, gaps = with_training_logprobs(answers(Q), roles, config)
    assert gaps["rollout/gap"] == pytest.approx((3 * math.log(2) + 5 * math.log(2.5)) / 24, abs=1e-6)
    assert gaps["rollout/gap_max"] == pytest.approx(math.log(2.5), abs=1e-6)
    assert weights[:8, 1].tolist() == pytest.approx([2.0] * 2 + [0.4] * 5 + [2.0], abs=1e-6)
