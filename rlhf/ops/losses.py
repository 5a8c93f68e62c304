"""Training losses: each a sum divided by a count that the caller totals over every rank and micro-batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf.ops.logprobs import token_logprobs
from rlhf.ops.masking import check_mask, check_scalar, masked_sum, require, widen


class CrossEntropy(NamedTuple):
    """Shapes: loss [] nats per unit of weight; nll [N] float32 nats, unweighted and detached, 0 where weight is 0."""

    loss: Tensor
    nll: Tensor


class RankingLoss(NamedTuple):
    """Shapes: [] each. loss in nats; equal scores are half correct; margin_sum in reward units, detached."""

    loss: Tensor
    num_correct: Tensor
    num_pairs: Tensor
    margin_sum: Tensor


class PolicyLoss(NamedTuple):
    """Shapes: [] each. loss in reward units; fractions in [0, 1]; approx_kl in nats, detached.

    clip_fraction is the sum of low_clip_fraction (ratio below the lower bound) and high_clip_fraction (above the upper
    one); dual_clip_fraction counts tokens that the dual clip holds, which are in none of the others.
    """

    loss: Tensor
    clip_fraction: Tensor
    low_clip_fraction: Tensor
    high_clip_fraction: Tensor
    dual_clip_fraction: Tensor
    approx_kl: Tensor


class ValueLoss(NamedTuple):
    """Shapes: [] each. loss in squared reward units; clip_fraction in [0, 1]."""

    loss: Tensor
    clip_fraction: Tensor


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, denominator: Tensor) -> CrossEntropy:
    """Weighted next-token cross-entropy: sum of weight * -log p(label), divided by `denominator`.

    Shapes:  logits [N, V]; labels [N] int64; weights [N] >= 0, at 0 logits and label may be anything;
             denominator [] = the weights' total over every rank and micro-batch of this optimizer step.
    Returns: CrossEntropy.
    Raises:  ValueError if the shapes differ, a weight is negative or NaN, or a counted label leaves [0, V).
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or weights.shape != labels.shape:
        raise ValueError(
            f"logits {list(logits.shape)}, labels {list(labels.shape)}, weights {list(weights.shape)}:"
            " expected [N, V], [N], [N]"
        )
    check_scalar(denominator=denominator)
    require((weights >= 0).all(), "weights hold a negative value or NaN, expected >= 0; 0 leaves a token out")
    counted = weights > 0
    known = torch.where(counted, labels, 0)
    require(
        ((known >= 0) & (known < logits.shape[1])).all(),
        f"a label of positive weight lies outside [0, {logits.shape[1]}); give ignored labels weight 0",
    )
    on_cpu = logits.device.type == "cpu"  # elsewhere reading the mask costs more than the copy that it may spare
    finite = logits if on_cpu and counted.all() else torch.where(counted.unsqueeze(-1), logits, 0)
    nll = torch.where(counted, -token_logprobs(finite, known), 0)
    return CrossEntropy(loss=masked_sum(nll * weights, counted) / denominator, nll=nll.detach())


def ranking_loss(
    scores: Tensor,
    ranks: Tensor,
    mask: Tensor,
    num_rankings: Tensor,
    *,
    margins: Tensor | None = None,
    label_smoothing: float = 0.0,
    centering: float = 0.0,
) -> RankingLoss:
    """Bradley-Terry loss: a mean over each prompt's untied pairs, summed over prompts, over `num_rankings`.

    With d = score of the better - score of the worse - margin, a pair costs
    -(1 - s) log sigmoid(d) - s log sigmoid(-d) + centering * (better + worse)^2, s = label_smoothing.
    A prompt without an untied pair adds 0 and no gradient.

    Shapes:  scores [B, K] reward units; ranks [B, K] int, 1 best, equal = tie; mask [B, K] bool;
             margins [B, K, K] reward units, read at [b, better, worse]; num_rankings [] = prompts with
             an untied pair over every rank and micro-batch of this optimizer step.
    Returns: RankingLoss; num_correct and margin_sum (better - worse, without margin) over num_pairs pairs.
    Raises:  ValueError if shapes or dtypes differ, label_smoothing leaves [0, 0.5), or centering is negative.
    Source:  arXiv:2203.02155 eq. 1; arXiv:2307.09288 eq. 2 (margin); arXiv:2312.09244 (centering).
    """
    _check_ranking(scores, ranks, mask, num_rankings, margins, label_smoothing, centering)
    pairs = untied_pairs(ranks, mask)
    known = widen(torch.where(mask, scores, 0))
    better, worse = known.unsqueeze(2), known.unsqueeze(1)
    gaps = better - worse
    beyond_margin = gaps if margins is None else gaps - torch.where(pairs, margins, 0)
    costs = -(1 - label_smoothing) * logsigmoid(beyond_margin) - label_smoothing * logsigmoid(-beyond_margin)
    costs = costs + centering * (better + worse).square()
    return RankingLoss(
        loss=mean_over_pairs(costs, pairs).sum() / num_rankings,
        num_correct=masked_sum((gaps > 0).float() + 0.5 * (gaps == 0).float(), pairs),
        num_pairs=pairs.sum(),
        margin_sum=masked_sum(gaps, pairs).detach(),
    )


def untied_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """Which answers of a prompt are better than which: [B, K, K] bool, True at [b, better, worse].

    Shapes:  ranks [B, K] int, 1 best, equal = tie; mask [B, K] bool, True = an answer.
    """
    return (ranks.unsqueeze(2) < ranks.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)


def mean_over_pairs(costs: Tensor, pairs: Tensor) -> Tensor:
    """The mean cost of each prompt's pairs, [B]; 0 for a prompt without one.

    Shapes:  costs [B, K, K]; pairs [B, K, K] bool, True = counts.
    """
    return torch.where(pairs, costs, 0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    num_tokens: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """PPO clipped surrogate, summed over response tokens and divided by `num_tokens`.

    The ratio r counts no further than 1 + clip_high where the advantage A is positive, and no lower than 1 - clip
    where it is negative. Where A is negative, r has no upper bound: with dual_clip the objective is at least
    dual_clip * A there.

    Shapes:  logprobs, old_logprobs [...] nats; advantages [...] reward units;
             mask [...] bool, True = response token, the sampled EOS among them;
             num_tokens [] = mask total over every rank and micro-batch of this optimizer step;
             clip_high None: the same as clip; dual_clip None: off.
    Returns: PolicyLoss; approx_kl is KL(old || new) in nats by the k3 estimator.
    Raises:  ValueError if the shapes differ, the mask is not boolean, clip or clip_high is not positive, or dual_clip
             is not above 1.
    Source:  arXiv:1707.06347 eq. 7; arXiv:2503.14476 eq. 10 (clip_high); arXiv:1912.09729 eq. 5 (dual_clip);
             joschu.net/blog/kl-approx.html (k3).
    """
    check_mask(mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    check_scalar(num_tokens=num_tokens)
    high = clip if clip_high is None else clip_high
    _check_clips(clip, high, dual_clip)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    gains = torch.where(mask, advantages, 0)
    ratio = log_ratio.exp()
    plain, clipped = ratio * gains, ratio.clamp(1 - clip, 1 + high) * gains
    surrogate, is_clipped = torch.minimum(plain, clipped), clipped < plain
    floored = (
        surrogate if dual_clip is None else torch.where(gains < 0, surrogate.maximum(dual_clip * gains), surrogate)
    )

    def share(counted: Tensor) -> Tensor:
        return masked_sum(counted.float(), mask) / num_tokens

    return PolicyLoss(
        loss=-masked_sum(floored, mask) / num_tokens,
        clip_fraction=share(is_clipped),
        low_clip_fraction=share(is_clipped & (gains < 0)),
        high_clip_fraction=share(is_clipped & (gains > 0)),
        dual_clip_fraction=share(floored > surrogate),
        approx_kl=masked_sum(log_ratio.expm1() - log_ratio, mask).detach() / num_tokens,
    )


def _check_clips(clip: float, clip_high: float, dual_clip: float | None) -> None:
    for name, bound in (("clip", clip), ("clip_high", clip_high)):
        if not bound > 0:
            raise ValueError(f"{name} = {bound}, expected > 0, such as 0.2")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip = {dual_clip}, expected > 1, such as 3, or None for no dual clip")


def largest_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """The largest exp(logprobs - old_logprobs) of these tokens; 0 where there is none.

    Shapes:  logprobs, old_logprobs [...] nats; mask [...] bool, of at least one entry.
    Returns: [], detached.
    Raises:  ValueError if the shapes differ or the mask is not boolean.
    """
    check_mask(mask, logprobs=logprobs, old_logprobs=old_logprobs)
    return torch.where(mask, (logprobs - old_logprobs).detach(), -torch.inf).max().exp()


def kl_loss(kl: Tensor, mask: Tensor, num_tokens: Tensor, *, coefficient: float) -> Tensor:
    """KL to the reference as a term of the policy loss: coefficient * estimate, over response tokens.

    Shapes:  kl [...] nats, with a gradient, from `kl_estimate` (k2 or k3: k1's gradient is 0 in the mean);
             mask [...] bool; num_tokens [] as in `policy_loss`.
    Returns: [] reward units, to be added to a loss that is minimised.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or coefficient is negative.
    Source:  arXiv:2402.03300 eq. 3, as a mean over tokens.
    """
    check_mask(mask, kl=kl)
    check_scalar(num_tokens=num_tokens)
    if not coefficient >= 0:
        raise ValueError(f"coefficient = {coefficient}, expected >= 0: it is a cost")
    return coefficient * masked_sum(kl, mask) / num_tokens


def entropy_bonus(entropy: Tensor, mask: Tensor, num_tokens: Tensor, *, weight: float) -> Tensor:
    """Entropy of the policy as a term to subtract from the policy loss: weight * mean over response tokens.

    Shapes:  entropy [...] nats, with a gradient; mask [...] bool; num_tokens [] as in `policy_loss`.
    Returns: [] reward units.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or weight is negative.
    Source:  arXiv:1707.06347 eq. 9, the term c2 S.
    """
    check_mask(mask, entropy=entropy)
    check_scalar(num_tokens=num_tokens)
    if not weight >= 0:
        raise ValueError(f"weight = {weight}, expected >= 0: the bonus is subtracted from the loss")
    return weight * masked_sum(entropy, mask) / num_tokens


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    num_tokens: Tensor,
    *,
    clip: float | None,
) -> ValueLoss:
    """Half the squared error of the critic: the larger of the plain one and of the value clipped around the old one.

    Shapes:  values, old_values, returns [...] reward units; mask [...] bool, True = response token;
             num_tokens [] = mask total over every rank and micro-batch of this optimizer step.
    Returns: ValueLoss; clip_fraction is the share of tokens whose clipped error is the larger one.
    Raises:  ValueError if the shapes differ, the mask is not boolean, or clip is neither None nor positive.
    Source:  `vf_losses2` in github.com/openai/baselines ppo2; without clipping arXiv:1707.06347 eq. 9.
    """
    check_mask(mask, values=values, old_values=old_values, returns=returns)
    check_scalar(num_tokens=num_tokens)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip = {clip}, expected > 0, or None for no clipping")
    known, old, targets = (torch.where(mask, each, 0) for each in (values, old_values, returns))
    plain = clipped = (known - targets).square()
    if clip is not None:
        clipped = (known.clamp(old - clip, old + clip) - targets).square()
    return ValueLoss(
        loss=0.5 * masked_sum(torch.maximum(plain, clipped), mask) / num_tokens,
        clip_fraction=masked_sum((clipped > plain).float(), mask) / num_tokens,
    )


def score_margins(scores: Tensor, mask: Tensor, *, scale: float) -> Tensor:
    """Margins for `ranking_loss` from a judge's scores: `scale` times how far score i lies above score j, at least 0.

    Shapes:  scores [B, K] in the judge's units; mask [B, K] bool, True = scored answer; scale in reward units per unit
             of the judge.
    Returns: [B, K, K] reward units, read at [b, better, worse]; 0 where either answer has no score.
    Raises:  ValueError if the shapes differ or the mask is not boolean.
    Source:  arXiv:2307.09288 section 3.2.2, with a gap of scores in place of four classes.
    """
    check_mask(mask, scores=scores)
    known = torch.where(mask, scores, 0)
    gaps = (known.unsqueeze(2) - known.unsqueeze(1)).clamp(min=0)
    return torch.where(mask.unsqueeze(2) & mask.unsqueeze(1), scale * gaps, 0)


def _check_ranking(
    scores: Tensor,
    ranks: Tensor,
    mask: Tensor,
    num_rankings: Tensor,
    margins: Tensor | None,
    label_smoothing: float,
    centering: float,
) -> None:
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {list(mask.shape)}, expected [B, K]")
    check_mask(mask, scores=scores, ranks=ranks)
    check_scalar(num_rankings=num_rankings)
    if ranks.is_floating_point():
        raise ValueError(f"ranks have dtype {ranks.dtype}, expected integers, 1 = best; scores go first")
    expected = [*mask.shape, mask.shape[1]]
    if margins is not None and list(margins.shape) != expected:
        raise ValueError(f"margins have shape {list(margins.shape)}, expected [B, K, K] = {expected}")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing = {label_smoothing}, expected 0 <= label_smoothing < 0.5")
    if not centering >= 0:
        raise ValueError(f"centering = {centering}, expected >= 0; 0 leaves it out")
