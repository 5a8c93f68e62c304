"""The head's loss in chunks is compared with the model's own logits before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import PackedRow
from rlhf.doctor.proofs_head import model_head_proof
from rlhf.models.head import LogprobRequest, install_head
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.ops.linear_logprobs import TokenLogprobs

ITEM = EncodedSequence(np.array([5, 9, 11, 7, 300], np.int32), np.array([False, False, True, True, True]))


class Policy:
    """A model without an engine around it."""

    dtype = "float32"

    def __init__(self, model: PackedCausalLM) -> None:
        self.model = model

    @torch.no_grad()
    def infer(self, row: PackedRow) -> Tensor:
        return self.model(row.input_ids, row.position_ids, row.segments, row.positions)

    @torch.no_grad()
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        request = LogprobRequest(row.labels, temperature)
        return self.model(row.input_ids, row.position_ids, row.segments, row.positions, request)


def test_a_plain_head_passes(tiny_neox: Path) -> None:
    model = load_causal_lm(str(tiny_neox))
    install_head(model.model, "chunked")
    check = model_head_proof(Policy(model), ITEM)
    assert (check.state, check.fix) == ("passed", "")


def test_logits_that_are_scaled_after_the_head_are_refused(tiny_neox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_causal_lm(str(tiny_neox))
    install_head(model.model, "chunked")
    plain = model.model.forward

    def scaled(**inputs):
        output = plain(**inputs)
        output.logits = output.logits * 0.5
        return output

    monkeypatch.setattr(model.model, "forward", scaled)
    check = model_head_proof(Policy(model), ITEM)
    assert (check.state, check.fix) == ("failed", "set model.head=whole")
    assert "tolerance 0.001" in check.detail


def test_numbers_that_are_none_are_left_to_the_first_step(tiny_neox: Path) -> None:
    model = load_causal_lm(str(tiny_neox))
    install_head(model.model, "chunked")
    with torch.no_grad():
        model.model.gpt_neox.final_layer_norm.bias.fill_(float("nan"))
    assert model_head_proof(Policy(model), ITEM).state == "passed"
