"""The first loss of a reward model beside that of equal scores, from which a new head should begin."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlhf.config.schema import RewardConfig
from rlhf.data.encode import EncodedRanking
from rlhf.ops.losses import ranking_loss
from rlhf.train.ranking_rows import pack_rankings

QUIET_WITHIN = 0.03  # nats


def loss_of_equal_scores(batch: Sequence[EncodedRanking], config: RewardConfig) -> float:
    """The loss in nats of a model that scores every answer 0: ln 2 without margins."""
    train = config.train
    row = pack_rankings(batch, margin_scale=train.margin_scale if train.margin == "scores" else None)
    ranks = row.carried["ranks"]
    loss = ranking_loss(
        torch.zeros(ranks.shape),
        ranks,
        row.carried["mask"],
        torch.tensor(float(len(batch))),
        margins=row.carried.get("margins"),
        label_smoothing=train.label_smoothing,
    )
    return float(loss.loss)


def first_loss_line(loss: float, expected: float) -> str:
    """What a run says of the first loss of a new head; a warning when it is not near that of equal scores."""
    found = f"first loss {loss:.4f}; equal scores have {expected:.4f}"
    if abs(loss - expected) <= QUIET_WITHIN:
        return f"{found}: the new head starts quiet"
    return (
        f"warning: {found}: the new head starts with an opinion, which training must first undo. The hidden states of "
        "this model are very large or not finite; check its weights, and a lower train.lr"
    )
