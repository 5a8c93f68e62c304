"""Whether a frozen head can tell the token that ends an answer from others."""

from __future__ import annotations

from torch import Tensor, nn

from rlhf.engine.partitioned import whole
from rlhf.models.loading import PackedCausalLM

ALIKE = 0.95  # cosine of two rows of a head; those of tokens that a base has learnt are far below
MANY = 8
ROWS = 1 << 14  # compared at a time


def tokens_alike(rows: Tensor, token: int) -> int:
    """How many other rows of a head [V, H] point the way of this token's: tokens that were never trained, mostly.

    A row of zeros points nowhere, so it is like no other, and none is like it.
    """
    if not rows[token].any():
        return 0
    own = nn.functional.normalize(rows[token].float(), dim=0)
    found = sum(int((nn.functional.normalize(part.float(), dim=1) @ own >= ALIKE).sum()) for part in rows.split(ROWS))
    return found - 1  # itself


def never_learnt(rows: Tensor, token: int) -> str:
    """What shows that a token's row of a head [V, H] was never trained; "" where nothing does."""
    if not rows[token].any():
        return "a row of zeros in the head"  # its logit says nothing of the text: one step of training would move it
    alike = tokens_alike(rows, token)
    return f"nearly the same row of the head as {alike:,} other tokens" if alike >= MANY else ""


def end_token_line(wrapped: PackedCausalLM, eos_id: int, token: str) -> str:
    """A warning where training cannot change the head and its row of `token` was never trained; or ""."""
    head = wrapped.model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or any(each.requires_grad for each in head.parameters()):
        return ""  # trained, or with an adapter of its own
    if not head.weight.is_floating_point():
        return ""  # packed 4-bit numbers
    with whole(list(head.parameters())):
        reason = never_learnt(head.weight.detach(), eos_id)
    if not reason:
        return ""
    return (
        f"warning: {token} (token {eos_id}), which ends an answer, has {reason}: this base never learnt it, and "
        "LoRA leaves the head as it is. Some answers will have another token where their end should be; to avoid it "
        "choose a template that ends answers with a token the base knows (data.template), or train all weights"
    )
