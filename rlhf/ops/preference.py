"""Losses of preference optimisation, from the log-probabilities of whole answers: pairs of rankings, single verdicts.

B prompts, K answers to each. A reward here is the implicit one of the policy, in units of `beta`; it is never paid.
Losses of pairs are a mean over each prompt's untied pairs, summed over prompts and divided by a count that the caller
totals over every rank and micro-batch, as in `rlhf.ops.losses.ranking_loss`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf.ops.losses import RankingLoss, mean_over_pairs, ranking_loss, untied_pairs
from rlhf.ops.masking import check_mask, check_scalar, masked_sum, require, widen


class PreferenceLoss(NamedTuple):
    """Shapes: [] each. loss with a gradient; the others are detached sums over what is compared (pairs or answers).

    num_correct counts equal rewards as half; chosen_sum and rejected_sum are sums of rewards over the better and the
    worse side, num_chosen and num_rejected their counts.
    """

    loss: Tensor
    num_correct: Tensor
    num_compared: Tensor
    chosen_sum: Tensor
    rejected_sum: Tensor
    num_chosen: Tensor
    num_rejected: Tensor


def answer_logprobs(logprobs: Tensor, answers: Tensor, count: int) -> Tensor:
    """The log-probability of each answer: the sum over its tokens, in float32.

    Shapes:  logprobs [P] nats, one per token; answers [P] int64 in [0, count), the answer each token belongs to.
    Returns: [count] nats; 0 for an answer without tokens.
    Raises:  ValueError if the shapes differ or an answer leaves [0, count).
    """
    if logprobs.ndim != 1 or answers.shape != logprobs.shape:
        raise ValueError(f"logprobs {list(logprobs.shape)}, answers {list(answers.shape)}: expected [P] both")
    require(((answers >= 0) & (answers < count)).all(), f"a token belongs to no answer of 0 to {count - 1}")
    wide = widen(logprobs)
    return wide.new_zeros(count).scatter_add(0, answers, wide)


def implicit_rewards(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """beta * (log policy - log reference) of each answer, the reward that the policy is optimal for, up to a constant.

    Shapes:  logprobs, reference_logprobs [...] nats; mask [...] bool, True = an answer.
    Returns: [...] reward units, 0 outside the mask.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or beta is not positive.
    Source:  arXiv:2305.18290 eq. 5.
    """
    check_mask(mask, logprobs=logprobs, reference_logprobs=reference_logprobs)
    _check_beta(beta)
    return beta * torch.where(mask, widen(logprobs) - widen(reference_logprobs), 0)


def normalised_rewards(logprobs: Tensor, lengths: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """beta times the mean log-probability of an answer's tokens: a reward without a reference.

    Shapes:  logprobs [...] nats per answer; lengths [...] its tokens, EOS included; mask [...] bool, True = an answer.
    Returns: [...] reward units, 0 outside the mask.
    Raises:  ValueError if the shapes differ, the mask is not boolean, a counted length is not positive, or beta is not.
    Source:  arXiv:2405.14734 eq. 4.
    """
    check_mask(mask, logprobs=logprobs, lengths=lengths)
    _check_beta(beta)
    require((~mask | (lengths > 0)).all(), "an answer has no tokens, so that its mean log-probability is unknown")
    return beta * torch.where(mask, widen(logprobs) / lengths.clamp(min=1), 0)


def sigmoid_loss(
    rewards: Tensor, ranks: Tensor, mask: Tensor, num_rankings: Tensor, *, margin: float = 0.0, smoothing: float = 0.0
) -> PreferenceLoss:
    """-log sigmoid(d) of each pair, d = reward of the better - reward of the worse - margin.

    With `implicit_rewards` it is DPO; `smoothing`, the probability that a label is wrong, makes it conservative DPO:
    -(1 - s) log sigmoid(d) - s log sigmoid(-d). With `normalised_rewards` and a target margin it is SimPO.

    Shapes:  rewards [B, K]; ranks [B, K] int, 1 best, equal = tie; mask [B, K] bool; num_rankings [] = prompts with an
             untied pair over every rank and micro-batch of this optimizer step.
    Raises:  ValueError as `ranking_loss`, or if the margin is negative.
    Source:  arXiv:2305.18290 eq. 7; ericmitchell.ai/cdpo.pdf; arXiv:2405.14734 eq. 6.
    """
    if not margin >= 0:
        raise ValueError(f"margin = {margin}, expected >= 0: the better answer should lead by it")
    margins = None if margin == 0 else torch.full((*mask.shape, mask.shape[-1]), margin, device=rewards.device)
    found = ranking_loss(rewards, ranks, mask, num_rankings, margins=margins, label_smoothing=smoothing)
    return _with_sides(found, rewards, untied_pairs(ranks, mask))


def ipo_loss(rewards: Tensor, ranks: Tensor, mask: Tensor, num_rankings: Tensor, *, beta: float) -> PreferenceLoss:
    """(h - 1 / (2 beta))^2 of each pair, h = the gap of the two answers' log ratios in nats: a gap that is large enough
    is not widened further.

    Shapes:  rewards [B, K], `implicit_rewards` with this beta (the paper's tau); the others as `sigmoid_loss`.
    Returns: loss in nats squared.
    Raises:  ValueError as `ranking_loss`, or if beta is not positive.
    Source:  arXiv:2310.12036 eq. 17, with sums over tokens as there.
    """
    _check_beta(beta)
    found = ranking_loss(rewards, ranks, mask, num_rankings)  # its checks and counts; its loss is not used
    pairs = untied_pairs(ranks, mask)
    known = torch.where(mask, rewards, 0)
    gaps = (known.unsqueeze(2) - known.unsqueeze(1)) / beta
    loss = mean_over_pairs((gaps - 1 / (2 * beta)).square(), pairs).sum() / num_rankings
    return _with_sides(found._replace(loss=loss), rewards, pairs)


def kto_loss(
    rewards: Tensor,
    good: Tensor,
    mask: Tensor,
    kl: Tensor,
    num_answers: Tensor,
    *,
    beta: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> PreferenceLoss:
    """weight * (1 - sigmoid(+-(reward - beta * kl))) of each answer: + for a good one, - for a bad one.

    Shapes:  rewards [B, K], `implicit_rewards` with this beta; good [B, K] bool, False = bad; mask [B, K] bool, True =
             an answer; kl [] nats, the reference point of `kto_reference_point`, without a gradient; num_answers [] =
             answers over every rank and micro-batch of this optimizer step.
    Returns: loss in reward units; num_correct counts good answers above the reference point and bad ones below.
    Raises:  ValueError if shapes or dtypes differ, beta is not positive, or a weight is negative.
    Source:  arXiv:2402.01306 eq. 8.
    """
    check_mask(mask, rewards=rewards, good=good)
    check_mask(good)
    check_scalar(kl=kl, num_answers=num_answers)
    _check_beta(beta)
    if not (good_weight >= 0 and bad_weight >= 0):
        raise ValueError(f"good_weight = {good_weight}, bad_weight = {bad_weight}: expected both >= 0")
    above = torch.where(mask, widen(rewards), 0) - beta * kl.detach()
    signed = torch.where(good, above, -above)
    weights = torch.where(good, good_weight, bad_weight)
    known, chosen, rejected = widen(rewards).detach(), mask & good, mask & ~good
    return PreferenceLoss(
        loss=masked_sum(weights * torch.sigmoid(-signed), mask) / num_answers,
        num_correct=masked_sum((signed > 0).float() + 0.5 * (signed == 0).float(), mask),
        num_compared=mask.sum(),
        chosen_sum=masked_sum(known, chosen),
        rejected_sum=masked_sum(known, rejected),
        num_chosen=chosen.sum(),
        num_rejected=rejected.sum(),
    )


def kto_reference_point(total: float, count: int) -> float:
    """The reference point of KTO: the mean log ratio of answers that belong to other prompts, at least 0.

    Args:    total: sum over all ranks of log policy - log reference of such answers, nats; count: their number.
    Returns: nats, an estimate of KL(policy || reference) that is biased towards answers of the data.
    Raises:  ValueError if there is none.
    Source:  arXiv:2402.01306 section 4.1.
    """
    if count < 1:
        raise ValueError("no answer of another prompt: the reference point of KTO is unknown")
    return max(0.0, total / count)


def imitation_loss(logprobs: Tensor, best: Tensor, num_tokens: Tensor) -> Tensor:
    """Cross-entropy of the best answers, as a term beside a preference loss that keeps their likelihood from falling.

    Shapes:  logprobs [B, K] nats per answer; best [B, K] bool, True = imitate; num_tokens [] = tokens of such answers
             over every rank and micro-batch of this optimizer step.
    Returns: [] nats per token.
    Raises:  ValueError if the shapes differ or `best` is not boolean.
    Source:  arXiv:2404.19733 eq. 1, the term of the negative log-likelihood, as a mean over tokens.
    """
    check_mask(best, logprobs=logprobs)
    check_scalar(num_tokens=num_tokens)
    return -masked_sum(logprobs, best) / num_tokens


def _with_sides(found: RankingLoss, rewards: Tensor, pairs: Tensor) -> PreferenceLoss:
    known = widen(rewards).detach()
    better, worse = known.unsqueeze(2).expand(pairs.shape), known.unsqueeze(1).expand(pairs.shape)
    return PreferenceLoss(
        loss=found.loss,
        num_correct=found.num_correct.detach(),
        num_compared=found.num_pairs,
        chosen_sum=masked_sum(better, pairs),
        rejected_sum=masked_sum(worse, pairs),
        num_chosen=found.num_pairs,
        num_rejected=found.num_pairs,
    )


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise ValueError(f"beta = {beta}, expected > 0, such as 0.1")
