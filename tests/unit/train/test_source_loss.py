"""Mean loss by source, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import idle_row, pack_sequences
from rlhf.train.source_loss import SourceLoss, source_names
from tests.support.tables import ONE_RANK


def test_means_by_source_weigh_tokens_alike_in_every_row() -> None:
    """Source a: 1 nat at weight 0.25 and 3 at 1; source b: 5 at 1, in another row. The idle row counts nothing."""
    first = EncodedSequence(np.asarray([9, 1, 2], np.int32), np.asarray([0, 0, 1], bool), "a")
    second = EncodedSequence(np.asarray([9, 3], np.int32), np.asarray([0, 1], bool), "b")
    assert source_names([second, first, second]) == ["a", "b"]
    losses = SourceLoss(["a", "b"], ONE_RANK)
    losses.add(torch.tensor([1.0, 3.0]), losses.labelled(pack_sequences([first], prompt_weight=0.25), [first]))
    losses.add(torch.tensor([5.0]), losses.labelled(pack_sequences([second], prompt_weight=0.25), [second]))
    losses.add(torch.tensor([math.nan]), losses.labelled(idle_row(), []))
    expected = {"loss": (0.25 + 3 + 5) / 2.25, "loss_by_source/a": 3.25 / 1.25, "loss_by_source/b": 5.0}
    assert losses.means("loss") == pytest.approx(expected)
    assert SourceLoss(["a"], ONE_RANK).means("loss") == {"loss": 0.0}
