"""Draws the next tokens of answers with settings of their own, without reading anything back from the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.data.transfer import moved
from rlhf.ops.logprobs import SampledTokens, greedy, sample_inverse_cdf, sampling_logits
from rlhf.rollout.sequences import ActiveSequence, Decoding, TopLogprobs


@dataclass(frozen=True, slots=True)
class DecodingGroup:
    """Rows that are drawn with the same settings; `rows` None: all of them."""

    decoding: Decoding
    rows: Tensor | None


def decoding_groups(decodings: Sequence[Decoding], device: torch.device) -> list[DecodingGroup]:
    """Rows by their settings; one group where all are equal."""
    distinct = list(dict.fromkeys(decodings))
    if len(distinct) == 1:
        return [DecodingGroup(distinct[0], None)]
    numbers = [[row for row, each in enumerate(decodings) if each == decoding] for decoding in distinct]
    rows = moved(torch.tensor([row for group in numbers for row in group]), device)
    parts = rows.split([len(group) for group in numbers])
    return [DecodingGroup(decoding, part) for decoding, part in zip(distinct, parts, strict=True)]


def draw_tokens(logits: Tensor, uniform: Tensor, groups: Sequence[DecodingGroup]) -> Tensor:
    """One token per row, [2, B] float64: ids, and log-probabilities in nats, NaN for logits that are not finite.

    Shapes: logits [B, V] float32; uniform [B] float64 in [0, 1). Rows in no group get token 0.
    """
    if groups[0].rows is None:
        drawn = _draw_alike(logits, uniform, groups[0].decoding)
    else:
        tokens = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        logprobs = torch.zeros(len(logits), dtype=torch.float32, device=logits.device)
        for group in groups:
            rows = group.rows
            assert rows is not None
            found = _draw_alike(logits.index_select(0, rows), uniform.index_select(0, rows), group.decoding)
            tokens.index_copy_(0, rows, found.tokens)
            logprobs.index_copy_(0, rows, found.logprobs)
        drawn = SampledTokens(tokens, logprobs)
    return torch.stack([drawn.tokens.double(), drawn.logprobs.double()])


def _draw_alike(logits: Tensor, uniform: Tensor, decoding: Decoding) -> SampledTokens:
    if decoding.temperature == 0:
        return greedy(logits, checks=False)
    kept = sampling_logits(logits, temperature=decoding.temperature, top_k=decoding.top_k, top_p=decoding.top_p)
    return sample_inverse_cdf(kept, uniform, checks=False)


def record_top_logprobs(answers: Sequence[ActiveSequence], logits: Tensor, tokens: Sequence[int]) -> None:
    """Records the top log-probabilities of the tokens drawn from logits [B, V], for the answers that ask for them."""
    wanting = [row for row, each in enumerate(answers) if each.num_likeliest is not None and not each.ended]
    if not wanting:
        return
    asked = moved(torch.tensor([wanting, [tokens[row] for row in wanting]]), logits.device)
    logprobs = logits.index_select(0, asked[0]).log_softmax(-1)
    own = logprobs.gather(1, asked[1, :, None])
    most = min(max(answers[row].num_likeliest or 0 for row in wanting), logits.shape[1])
    values, ids = logprobs.topk(most, dim=-1)
    for row, numbers in zip(wanting, torch.cat([own.double(), values.double(), ids.double()], 1).tolist(), strict=True):
        count = answers[row].num_likeliest
        top = zip(map(int, numbers[1 + most :]), numbers[1 : 1 + most], strict=True)
        answers[row].top_logprobs.append(TopLogprobs(numbers[0], tuple(top)[:count]))
