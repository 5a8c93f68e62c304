"""Models that are tables: a leaf of logits (or values) for each token of the packed row, read where PPO reads it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.packing import PackedRow
from rlhf.data.records import Message
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import StepOutcome
from rlhf.engine.ranks import Ranks
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.losses import CrossEntropy
from rlhf.train.policy.samples import Sample

EOS, VOCABULARY = 0, 7
ONE_RANK = Ranks(0, 0, 1, torch.device("cpu"))
RATES = {"actor": 1.0, "critic": 1.0}


class Table:
    """Stands for a model under the engine: `values` [T, ...] is its output after each of the row's T tokens.

    It counts its steps, moves at none of them, and keeps the gradient of the last, which `discard` drops.
    """

    ranks = ONE_RANK
    dtype = "float32"

    def __init__(self, values: Tensor) -> None:
        self.values = values.requires_grad_(True)
        self.rows: list[PackedRow] = []
        self.steps: list[float] = []

    def forward(self, row: PackedRow) -> Tensor:
        assert row.num_tokens == len(self.values)
        self.rows.append(row)
        return self.values[row.positions]

    def infer(self, row: PackedRow) -> Tensor:
        return self.forward(row).detach()

    def logprobs(self, row: PackedRow, temperature: float, *, with_entropy: bool = False) -> TokenLogprobs:
        logs = (self.forward(row) / temperature).log_softmax(-1)
        spread = -(logs.exp() * logs).sum(-1) if with_entropy else torch.zeros(len(logs))
        return TokenLogprobs(logs.gather(1, row.labels[:, None])[:, 0], spread)

    @torch.no_grad()
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        return self.logprobs(row, temperature)

    def loss(self, row: PackedRow, total: float) -> CrossEntropy:
        nll = -self.logprobs(row, 1.0).logprobs
        return CrossEntropy((nll * row.weights).sum() / total, nll.detach())

    def train(self) -> None: ...

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> StepOutcome:
        self.steps.append(lr)
        return StepOutcome(0.0, True)

    def discard(self) -> StepOutcome:
        norm = 0.0 if self.values.grad is None else float(self.values.grad.norm())
        self.values.grad = None
        return StepOutcome(norm, False)

    @property
    def learning(self) -> list[int]:
        """Places of the row whose output got a gradient."""
        gradient = self.values.grad
        assert gradient is not None
        return gradient.flatten(1).abs().sum(1).nonzero().flatten().tolist()


class SameTokenizer(ChatTokenizer):
    """Two that agree: ids go to the reward model as they are."""

    def __init__(self) -> None: ...

    def fingerprint(self) -> str:
        return "same"


def sample(prompt: list[int], response: list[int], *, source: str = "", **numbers: Any) -> Sample:
    encoded = EncodedPrompt(np.asarray(prompt, np.int32), 0, (Message("user", "질문"),), source)
    count = len(response)
    filled = {
        "old_logprobs": np.full(count, -math.log(VOCABULARY), np.float32),  # the table of zeros says the same
        "reference_logprobs": np.full(count, -math.log(VOCABULARY), np.float32),
        "values": np.zeros(count, np.float32),
        "advantages": np.ones(count, np.float32),
        "returns": np.ones(count, np.float32),
        **numbers,
    }
    return Sample(encoded, np.asarray(response, np.int32), response[-1] == EOS, **filled)


def ppo_config(**ppo: Any) -> PpoConfig:
    return PpoConfig.model_validate({"train": {"batch_size": 1}, "ppo": ppo})
