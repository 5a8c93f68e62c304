"""Forward passes over packed rows: a model's output, log-probabilities and losses, with a graph and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rlhf.data.packing import PackedRow
from rlhf.engine.ranks import Ranks
from rlhf.models.head import LogprobRequest, LossRequest, Request, Result
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.losses import CrossEntropy


class RowModel:
    """A packed model, alone or inside a DeepSpeed engine, as a function of rows.

    Args:
        engine: the module whose `forward` is called, so that DeepSpeed's hooks run.
        options: further arguments of `forward`, such as a role.
    """

    def __init__(self, engine: Any, ranks: Ranks, **options: Any) -> None:
        self.ranks, self._engine, self._options = ranks, engine, options

    def forward(self, row: PackedRow) -> Tensor:
        """The model's output at the row's positions, with a graph: logits, or the scores of a scalar model."""
        return self._call(row.to(self.ranks.device))

    def logprobs(self, row: PackedRow, temperature: float, *, with_entropy: bool = False) -> TokenLogprobs:
        """Log-probabilities of the row's labels (and the entropy) under softmax(logits / temperature), with a graph."""
        row = row.to(self.ranks.device)
        return self._request(row, LogprobRequest(row.labels, temperature, with_entropy))

    def loss(self, row: PackedRow, total: float, *, noise: Tensor | None = None) -> CrossEntropy:
        """The row's share of the mean cross-entropy, its labels weighted and divided by the global `total`.

        `noise` [1, T, width], if any, is added to the embeddings of the row's T tokens.
        """
        row = row.to(self.ranks.device)
        options = {} if noise is None else {"noise": noise.to(self.ranks.device)}
        denominator = torch.full((), total, dtype=torch.float32, device=self.ranks.device)
        return self._request(row, LossRequest(row.labels, row.weights, denominator), **options)

    @torch.no_grad()
    def infer(self, row: PackedRow) -> Tensor:
        """As `forward`, in eval mode and without a graph."""
        with self.evaluating():
            return self.forward(row)

    @torch.no_grad()
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        """As `logprobs`, in eval mode and without a graph."""
        with self.evaluating():
            return self.logprobs(row, temperature)

    @torch.no_grad()
    def infer_loss(self, row: PackedRow) -> CrossEntropy:
        """Negative log-likelihoods of the row's labels, in eval mode and without a graph."""
        with self.evaluating():
            return self.loss(row, 1.0)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode while active."""
        training = self._engine.training
        self._engine.eval()
        try:
            yield
        finally:
            self._engine.train(training)

    def _request(self, row: PackedRow, request: Request[Result], **options: Any) -> Result:
        answer: Any = self._call(row, request=request, **options)
        return answer

    def _call(self, row: PackedRow, **options: Any) -> Any:
        return self._engine(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            segments=row.segments,
            positions=row.positions,
            **self._options,
            **options,
        )
