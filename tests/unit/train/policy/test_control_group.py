"""The figures of the control group from samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.data.packing import PackedRow
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.train.policy.control_group import _by_prompt, policy_kl
from rlhf.train.policy.roles import Roles
from tests.support.tables import EOS, ONE_RANK, ppo_config, sample


class Halves:
    """A reference that gives each token 1/2."""

    ranks = ONE_RANK

    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        return TokenLogprobs(torch.full((len(row.positions),), -math.log(2)), torch.zeros(len(row.positions)))


def test_the_kl_of_an_answer_is_the_sum_over_its_tokens() -> None:
    """The policy was sure of two tokens, so log 2 each; of one token it gave a quarter, so -log 2."""
    sure = sample([2], [5, EOS], old_logprobs=np.zeros(2, np.float32))
    unsure = sample([2, 3], [EOS], old_logprobs=np.asarray([-math.log(4)], np.float32))
    roles: Any = Roles(Halves(), None, Halves(), None)  # type: ignore[arg-type]
    assert policy_kl([sure, unsure], roles, ppo_config()) == pytest.approx([2 * math.log(2), -math.log(2)])


def test_scores_are_grouped_by_prompt() -> None:
    """Two prompts answered three times, all prompts once before any is answered again."""
    assert _by_prompt([1, 10, 2, 20, 3, 30], 2).tolist() == [[1, 2, 3], [10, 20, 30]]
