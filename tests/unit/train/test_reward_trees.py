"""K answers from one forward of their prompt: the loss and gradient of separate pairs, ties included."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rlhf.data.encode import EncodedRanking
from rlhf.models.loading import load_scalar_model
from rlhf.ops.losses import ranking_loss
from rlhf.train.ranking_rows import pack_rankings, score_table

RANKS = {2: (2, 1), 4: (1, 3, 3, 2), 9: (4, 1, 2, 2, 5, 1, 3, 4, 4)}  # 4 and 9 hold ties


def _rankings(num_answers: int) -> list[EncodedRanking]:
    generator = np.random.default_rng(num_answers)

    def ids(length: int) -> np.ndarray:
        return generator.integers(3, 400, length).astype(np.int32)

    first = EncodedRanking(ids(6), tuple(ids(2 + n % 3) for n in range(num_answers)), RANKS[num_answers])
    return [first, EncodedRanking(ids(3), (ids(4), ids(1)), (1, 2))]


def _pairwise_loss(model: torch.nn.Module, rankings: list[EncodedRanking]) -> Tensor:
    """Each pair from two forward passes of plain transformers: mean over a prompt's pairs, then over prompts."""

    def score(prompt: np.ndarray, answer: np.ndarray) -> Tensor:
        ids = torch.from_numpy(np.concatenate([prompt, answer])).long()[None]
        hidden = model.gpt_neox(input_ids=ids, use_cache=False).last_hidden_state
        return model.score(hidden[0, -1]).squeeze(-1)

    prompts = []
    for item in rankings:
        costs = [
            -torch.nn.functional.logsigmoid(
                score(item.prompt, item.answers[better]) - score(item.prompt, item.answers[worse])
            )
            for better, worse in permutations(range(len(item.ranks)), 2)
            if item.ranks[better] < item.ranks[worse]
        ]
        prompts.append(torch.stack(costs).mean())
    return torch.stack(prompts).mean()


@pytest.mark.parametrize("num_answers", [2, 4, 9])
def test_a_tree_equals_separate_pairs_in_loss_and_gradient(tiny_reward: Path, num_answers: int) -> None:
    rankings = _rankings(num_answers)
    model = load_scalar_model(str(tiny_reward))
    plain = AutoModelForSequenceClassification.from_pretrained(
        tiny_reward, num_labels=1, dtype=torch.float32, attn_implementation="eager"
    )
    row = pack_rankings(rankings)
    scores = score_table(model(row.input_ids, row.position_ids, row.segments, row.positions), row)
    loss = ranking_loss(scores, row.carried["ranks"], row.carried["mask"], torch.tensor(2.0)).loss
    expected = _pairwise_loss(plain, rankings)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)

    loss.backward()
    expected.backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in model.model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5, msg=name)
