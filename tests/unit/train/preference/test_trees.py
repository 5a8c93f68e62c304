"""K answers behind one prompt in one forward: loss and gradient of separate pairs, each alone in plain transformers."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from rlhf.config.preference import DpoSection
from rlhf.data.encode import EncodedRanking
from rlhf.models.head import LogprobRequest, install_head
from rlhf.models.loading import load_causal_lm
from rlhf.train.preference.rows import ReferencedRow, logprob_table, pack_compared
from rlhf.train.preference.step import preference_loss

RANKS = {2: (2, 1), 4: (1, 3, 3, 2), 9: (4, 1, 2, 2, 5, 1, 3, 4, 4)}  # 4 and 9 hold ties
BETA = 0.1


def _rows(num_answers: int) -> list[ReferencedRow]:
    generator = np.random.default_rng(num_answers)

    def ids(length: int) -> np.ndarray:
        return generator.integers(3, 400, length).astype(np.int32)

    first = EncodedRanking(ids(6), tuple(ids(2 + n % 3) for n in range(num_answers)), RANKS[num_answers])
    second = EncodedRanking(ids(3), (ids(4), ids(1)), (1, 2))
    return [ReferencedRow(each, tuple(generator.normal(-15, 3, len(each.answers)))) for each in (first, second)]


def _pair_cost(loss: str, better: Tensor, worse: Tensor, lengths: tuple[int, int]) -> Tensor:
    """The papers' formulas on log ratios (sigmoid, ipo) or log-probabilities (simpo) of two answers."""
    if loss == "sigmoid":
        return -logsigmoid(BETA * better - BETA * worse)
    if loss == "ipo":
        return (better - worse - 1 / (2 * BETA)) ** 2
    return -logsigmoid(2.0 * better / lengths[0] - 2.0 * worse / lengths[1] - 1.0)


def _separate_pairs(model: torch.nn.Module, rows: list[ReferencedRow], loss: str) -> Tensor:
    """Each answer of each pair from a forward pass of its own: a mean over a prompt's pairs, then over prompts."""

    def logprob(prompt: np.ndarray, answer: np.ndarray) -> Tensor:
        ids = torch.from_numpy(np.concatenate([prompt, answer])).long()
        logits = model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return logits.gather(1, ids[len(prompt) :, None]).sum()

    prompts = []
    for row in rows:
        item, costs = row.item, []
        for pair in permutations(range(len(item.ranks)), 2):
            if item.ranks[pair[0]] < item.ranks[pair[1]]:
                answers = [item.answers[each] for each in pair]
                known = [0.0, 0.0] if loss == "simpo" else [row.reference[each] for each in pair]
                found = [logprob(item.prompt, answer) - own for answer, own in zip(answers, known, strict=True)]
                costs.append(_pair_cost(loss, found[0], found[1], (len(answers[0]), len(answers[1]))))
        prompts.append(torch.stack(costs).mean())
    return torch.stack(prompts).mean()


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "simpo"])
@pytest.mark.parametrize("num_answers", [2, 4, 9])
def test_a_tree_equals_separate_pairs_in_loss_and_gradient(tiny_neox: Path, num_answers: int, loss: str) -> None:
    rows, dpo = _rows(num_answers), DpoSection.model_validate({"loss": loss})
    model = load_causal_lm(str(tiny_neox))
    install_head(model.model, "chunked")
    plain = AutoModelForCausalLM.from_pretrained(tiny_neox, dtype=torch.float32, attn_implementation="eager")
    row = pack_compared(rows)
    request = LogprobRequest(row.labels, 1.0)
    tokens = model(row.input_ids, row.position_ids, row.segments, row.positions, request=request).logprobs
    found = preference_loss(dpo, logprob_table(tokens, row), row.carried, torch.tensor(2.0), torch.tensor(0.0)).loss
    expected = _separate_pairs(plain, rows, loss)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    found.backward()
    expected.backward()
    theirs = dict(plain.named_parameters())
    size = max(float(each.grad.abs().max()) for each in theirs.values())
    assert size > 1e-3
    for name, parameter in model.model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5 * max(1.0, size), msg=name)


def test_every_token_of_an_answer_is_read_once_and_the_prompt_at_its_end_once_per_answer() -> None:
    ids = [np.asarray(each, np.int32) for each in ([1, 2, 3], [4, 5], [6], [7, 8])]
    rows = [
        ReferencedRow(EncodedRanking(ids[0], (ids[1], ids[2]), (2, 1)), (-1.0, -2.0)),
        ReferencedRow(EncodedRanking(ids[2], (ids[3], ids[1], ids[2]), (1, 1, 2)), (-3.0, -4.0, -5.0)),
    ]
    row = pack_compared(rows)
    assert row.input_ids[0].tolist() == [1, 2, 3, 4, 5, 6, 6, 7, 8, 4, 5, 6]
    assert row.labels.tolist() == [4, 5, 6, 7, 8, 4, 5, 6]
    assert row.positions.tolist() == [2, 3, 2, 6, 7, 6, 9, 6]
    assert row.carried["answers"].tolist() == [0, 0, 1, 2, 2, 3, 3, 4]
    assert row.carried["references"].tolist() == [[-1.0, -2.0, 0.0], [-3.0, -4.0, -5.0]]
    assert row.carried["lengths"].tolist() == [[2, 1, 0], [2, 2, 1]]
    assert row.carried["best"].tolist() == [[False, True, False], [True, True, False]]
    table = logprob_table(torch.tensor([-1.0, -1.0, -2.0, -3.0, -1.0, -5.0, -1.0, -7.0]), row)
    assert table.tolist() == [[-2.0, -2.0, 0.0], [-4.0, -6.0, -7.0]]


def test_an_idle_row_has_a_graph_and_no_loss_whatever_its_logprob() -> None:
    tokens = torch.tensor([float("nan")], requires_grad=True)
    row = pack_compared([])
    for loss in ("sigmoid", "ipo", "simpo", "kto"):
        dpo = DpoSection.model_validate({"loss": loss})
        out = preference_loss(dpo, logprob_table(tokens, row), row.carried, torch.tensor(2.0), torch.tensor(0.0))
        (gradient,) = torch.autograd.grad(out.loss, tokens)
        assert (out.loss.item(), float(out.num_compared), gradient.tolist()) == (0.0, 0.0, [0.0]), loss
