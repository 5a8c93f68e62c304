"""The problem that every world size, ZeRO stage and micro-batch must solve alike: its batches and its settings.

Made once by the tests and read by every worker. Ids are random: no tokenizer stands between the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import RewardConfig, SftConfig
from rlhf.config.sections import LrGroup
from rlhf.data.encode import EncodedPrompt, EncodedRanking, EncodedSequence, Ids
from rlhf.data.records import Message
from rlhf.train.policy.samples import Sample
from rlhf.train.schedules import Schedule

EOS, PAD, FIRST_ID, LAST_ID = 0, 1, 2, 400  # PAD is in no batch
SCHEDULE = Schedule(total=5, warmup=2, kind="linear", floor=0.1)
STEP_NUMBERS = (1, 3, 4)  # of the three updates: one in the warm-up, one at the peak, one in the decay
FACTORS = (0.5, 1.0, 0.55)  # of SCHEDULE at these steps, by hand: half the warm-up; the peak; half way from 1 to 0.1
LARGE, SMALL = 4096, 48  # micro_tokens: the whole batch in a row, and at least four rows a rank at step 1
STEPS = 3
EMA_DECAY, SLOW = 0.15, 1e-6
TEMPERATURE = 0.7
KL_COEFFICIENT = 0.1
NUM_GROUPS, GROUP = 5, 3
MINIBATCHES = (slice(15), slice(3, 8), slice(7, 8))  # of the groups' samples; the last leaves a rank idle
RULE_WEIGHT = -0.5


def rule_scores(count: int) -> list[float]:
    """What a reward function beside the reward model says of the first answers."""
    return [0.3 * (number % 4) for number in range(count)]


# Clipping bites (norms here are above 1). Adam's epsilon is of the gradients' size: then an update grows with the
# gradient, so that a wrong factor shows in the weights too, and rounding is not blown up where a gradient is 0.
OPTIMIZER = {"lr": 0.01, "weight_decay": 0.1, "max_grad_norm": 0.5, "epsilon": 1e-3, "beta1": 0.8, "beta2": 0.9}

# As it is, ZeRO 3 keeps every weight of a tiny model whole on each rank, and would hide a forgotten gathering.
REALLY_PARTITIONED = {
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
}


@dataclass(frozen=True)
class Problem:
    """Global batches of three steps. The last has one item: with two ranks, one of them is idle."""

    demonstrations: list[list[EncodedSequence]]
    rankings: list[list[EncodedRanking]]
    samples: list[list[Sample]]  # advantages, returns and so on by hand: input of the PPO update
    answered: list[Sample]  # as rollout leaves them: input of the experience stage


def make_problem() -> Problem:
    """The same numbers each time."""
    random = np.random.default_rng(5)
    return Problem(
        demonstrations=[_demonstrations(random, count) for count in (14, 5, 1)],
        rankings=[[_ranking(random, 2 + row % 3) for row in range(count)] for count in (10, 4, 1)],
        samples=[[_sample(random, row) for row in range(count)] for count in (16, 5, 1)],
        answered=[_answered(random, row) for row in range(9)],
    )


def sft_config(micro_tokens: int) -> SftConfig:
    train = {**OPTIMIZER, "micro_tokens": micro_tokens, "prompt_loss_weight": 0.25}
    return SftConfig.model_validate({"train": train, "data": {"max_length": SMALL}})


def options_config() -> SftConfig:
    """Stage 1 with noise on embeddings, an average of weights, and embeddings that hardly learn."""
    plain = sft_config(SMALL)
    slow = [LrGroup(match="embed_in", scale=SLOW)]
    train = plain.train.model_copy(update={"neftune_alpha": 5.0, "ema_decay": EMA_DECAY, "lr_groups": slow})
    return plain.model_copy(update={"train": train})


def reward_config(micro_tokens: int) -> RewardConfig:
    train = {**OPTIMIZER, "micro_tokens": micro_tokens, "label_smoothing": 0.1, "centering": 0.01}
    return RewardConfig.model_validate({"train": train, "data": {"max_length": SMALL}})


def ppo_config(micro_tokens: int) -> PpoConfig:
    return PpoConfig.model_validate(
        {
            "run": {"seed": 3},
            "train": {**OPTIMIZER, "micro_tokens": micro_tokens, "batch_size": 1},
            "critic": {**OPTIMIZER, "lr": 0.02},
            "data": {"max_length": SMALL},
            "ppo": {
                "entropy_weight": 0.01,
                "kl_estimator": "k2",
                "score_clip": 1.0,
                "value_clip": 0.2,
                "lam": 0.9,
                "gamma": 0.98,
            },
            "sampling": {"temperature": TEMPERATURE, "max_new_tokens": 12, "max_prompt_tokens": 20, "batch_size": 3},
        }
    )


def critic_free_config(micro_tokens: int) -> PpoConfig:
    """GRPO in groups of three, KL in the loss, demonstrations beside it; scores are neither clipped nor whitened."""
    ppo = {
        "estimator": "grpo",
        "samples_per_prompt": GROUP,
        "rollout_size": NUM_GROUPS * GROUP,
        "kl_in": "loss",
        "kl_estimator": "k3",
        "ptx_weight": 0.5,
        "score_clip": None,
    }
    return PpoConfig.model_validate(
        {
            "train": {**OPTIMIZER, "micro_tokens": micro_tokens, "batch_size": 1},
            "data": {"max_length": SMALL, "ptx": "demonstrations.jsonl"},
            "ppo": ppo,
            "sampling": {"temperature": TEMPERATURE, "max_new_tokens": 12, "max_prompt_tokens": 20},
        }
    )


def _ids(random: np.random.Generator, count: int) -> Ids:
    return random.integers(FIRST_ID, LAST_ID, count).astype(np.int32)


def _demonstrations(random: np.random.Generator, count: int) -> list[EncodedSequence]:
    """Of 16 to 44 tokens; every third has two answers."""
    sequences = []
    for row in range(count):
        length = int(random.integers(16, 45))
        mask = np.arange(length) >= length // 2
        if row % 3 == 1:
            mask[2:5] = True
        sequences.append(EncodedSequence(_ids(random, length), mask))
    return sequences


def _ranking(random: np.random.Generator, num_answers: int) -> EncodedRanking:
    """Of four answers two tie; others have an order of their own."""
    answers = [np.append(_ids(random, int(random.integers(2, 8))), np.int32(EOS)) for _ in range(num_answers)]
    ranks = {2: (2, 1), 3: (1, 3, 2), 4: (2, 1, 2, 3)}[num_answers]
    return EncodedRanking(_ids(random, int(random.integers(4, 12))), tuple(answers), ranks)


def _prompt(random: np.random.Generator, row: int) -> EncodedPrompt:
    return EncodedPrompt(_ids(random, int(random.integers(3, 16))), row, (Message("user", "질문"),))


def _floats(random: np.random.Generator, mean: float, scale: float, count: int) -> np.ndarray:
    return random.normal(mean, scale, count).astype(np.float32)


def _sample(random: np.random.Generator, row: int) -> Sample:
    """A minibatch's sample. `old_logprobs` and `values` hold noise alone: the tests add the model's numbers to it."""
    response = _ids(random, int(random.integers(3, 14)))
    if row % 3:
        response[-1] = EOS
    count = len(response)
    return Sample(
        _prompt(random, row),
        response,
        finished=bool(row % 3),
        old_logprobs=_floats(random, 0.0, 0.3, count),  # some ratios leave 1 +- 0.2
        values=_floats(random, 0.0, 0.3, count),
        advantages=_floats(random, 0.2, 1.0, count),
        returns=_floats(random, 0.0, 1.0, count),
    )


def _answered(random: np.random.Generator, row: int) -> Sample:
    response = _ids(random, int(random.integers(1, 13)))
    if row % 2:
        response[-1] = EOS
    return Sample(_prompt(random, row), response, bool(row % 2), _floats(random, -6.0, 0.5, len(response)))
