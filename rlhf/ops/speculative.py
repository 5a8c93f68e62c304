"""Speculative sampling from drafts of which some probabilities are known: the tokens have exactly the new distribution.

Let q be the distribution that a draft token x was drawn from, p the new one, and m any numbers with 0 <= m(v) <= q(v)
for every token v. x is kept with probability min(m(x), p(x)) / q(x), else a token is drawn from max(0, p - m),
normalised. A token v then comes out with probability

    q(v) min(m(v), p(v)) / q(v) + (1 - sum_u min(m(u), p(u))) max(0, p(v) - m(v)) / sum_u max(0, p(u) - m(u)) = p(v),

because 1 - sum min(m, p) = sum max(0, p - m) for p of sum 1, and min(m, p) + max(0, p - m) = p. m = q is the rule
min(1, p / q) of the source; here m is q where its probability was kept and 0 elsewhere, so that min(m(x), p(x)) / q(x)
is min(1, p(x) / m(x)) for a kept token and 0 for another.

Source: arXiv:2302.01318, theorem 1, and arXiv:2211.17192, appendix A.1, for m = q.
"""

from __future__ import annotations

import torch
from torch import Tensor


def accepted(kept: Tensor, new: Tensor, uniform: Tensor) -> Tensor:
    """Which draft tokens are kept: with probability min(1, new / kept), never where `kept` is 0.

    Shapes:  kept [N] the known probability of each token when it was drawn, 0 where unknown; new [N] its probability
             under the new distribution; uniform [N] in [0, 1).
    Returns: [N] bool.
    """
    return (kept > 0) & (uniform * kept < new)


def residual_logits(probabilities: Tensor, kept: Tensor) -> Tensor:
    """log max(0, p - m), not normalised: the distribution of the token that takes a rejected one's place.

    Shapes:  probabilities [R, V] of the new distribution p; kept [R, V] the known ones m of the old, 0 where unknown.
    Returns: [R, V]; -inf is probability 0. Where p <= m everywhere, which takes a rounding error, log p.
    """
    left = (probabilities - kept).clamp_(min=0)
    none = (left.amax(-1, keepdim=True) == 0).expand_as(left)
    return torch.where(none, probabilities, left).log()
