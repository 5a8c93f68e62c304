"""Upper bounds on the tokens of a forward pass, a step and a rollout, from the configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, LanguageConfig, RewardConfig, StageConfig


@dataclass(frozen=True)
class Batches:
    """row: tokens of one packed row; micro: rows of a rank per step; prompt: tokens of a prompt."""

    row: int
    micro: int
    prompt: int


SHORTEST = Batches(row=1, micro=1, prompt=1)  # a lower bound for any data


def batches_of(config: StageConfig, world_size: int) -> Batches:
    """Rows are assumed full: an upper bound for data that is shorter than its limit."""
    longest = longest_item(config)
    total = config.train.batch_size * longest
    rows = max(1, math.ceil(total / config.train.micro_tokens / world_size))
    row = min(config.train.micro_tokens, math.ceil(total / world_size / rows))
    prompt = config.sampling.max_prompt_tokens if isinstance(config, LanguageConfig) else config.data.max_length
    return Batches(row, rows, prompt)


def longest_item(config: StageConfig) -> int:
    """Tokens of one item at most: a sequence, a ranking with all its answers, a prompt with its answer."""
    if isinstance(config, PpoConfig):
        return config.sampling.max_prompt_tokens + config.sampling.max_new_tokens
    if isinstance(config, RewardConfig | DpoConfig):
        return min(config.train.micro_tokens, config.data.max_length * config.data.max_answers)
    return config.data.max_length
