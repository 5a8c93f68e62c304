"""The default backend: a batched decode loop over transformers' caches.

Prompts are sorted by length and left-padded; finished answers leave the batch once enough have; each token's
log-probability is taken from the very distribution it was drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Ids
from rlhf.ops.logprobs import Sampled, greedy, sample_inverse_cdf, sampling_logits
from rlhf.rollout.base import Floats, Rollouts, uniform_draws

SHRINK_BELOW = 0.75  # copy the cache without its finished rows when fewer than this share are alive


@dataclass(slots=True)
class TransformersRollout:
    """Decodes with a Hugging Face causal LM that holds whole weights.

    Args:
        model: the causal LM, in eval mode.
        eos_id: ends an answer.
        pad_id: fills the left of shorter prompts; never attended to.
    """

    model: Any
    eos_id: int
    pad_id: int

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts:
        """One answer a prompt; `streams` are named apart, so the same name gives the same draw anywhere."""
        order = sorted(range(len(prompts)), key=lambda item: len(prompts[item]))
        tokens: list[Ids] = [np.empty(0, np.int32)] * len(prompts)
        logprobs: list[Floats] = [np.empty(0, np.float32)] * len(prompts)
        for first in range(0, len(order), sampling.batch_size):
            batch = order[first : first + sampling.batch_size]
            decoded = self._decode([prompts[i] for i in batch], [streams[i] for i in batch], sampling)
            for item, (ids, values) in zip(batch, decoded, strict=True):
                tokens[item], logprobs[item] = ids, values
        finished = [bool(len(ids)) and int(ids[-1]) == self.eos_id for ids in tokens]
        return Rollouts(tokens, logprobs, finished)

    def _decode(
        self, prompts: list[Ids], streams: list[tuple[int, ...]], sampling: SamplingSection
    ) -> list[tuple[Ids, Floats]]:
        device = next(self.model.parameters()).device
        limit = sampling.max_new_tokens
        draws = torch.from_numpy(np.stack([uniform_draws(stream, limit) for stream in streams])).to(device)
        ids, mask = self._left_padded(prompts, device)
        cache, alive = DynamicCache(config=self.model.config), torch.arange(len(prompts), device=device)
        tokens = torch.zeros(len(prompts), limit, dtype=torch.int64, device=device)
        logprobs = torch.zeros(len(prompts), limit, device=device)
        lengths = torch.full((len(prompts),), limit, dtype=torch.int64, device=device)
        position = mask.long().cumsum(1) - 1
        for step in range(limit):
            logits = self._forward(ids, mask, position.clamp(min=0), cache)
            chosen = _choose(logits, draws[alive, step], sampling)
            tokens[alive, step], logprobs[alive, step] = chosen.tokens, chosen.logprobs
            ended = chosen.tokens == self.eos_id
            lengths[alive[ended]] = torch.clamp(lengths[alive[ended]], max=step + 1)
            running = lengths[alive] > step + 1
            num_running = int(running.sum())
            if num_running == 0:
                break
            keep = torch.arange(len(alive), device=device)
            if num_running <= SHRINK_BELOW * len(alive):
                keep = running.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                alive = alive[keep]
            ids = chosen.tokens[keep, None]
            mask = torch.cat([mask[keep], mask.new_ones(len(keep), 1)], dim=1)
            position = position[keep, -1:] + 1
        counts = lengths.tolist()
        return [
            (tokens[row, :count].to(torch.int32).cpu().numpy(), logprobs[row, :count].cpu().numpy())
            for row, count in enumerate(counts)
        ]

    def _left_padded(self, prompts: list[Ids], device: torch.device) -> tuple[Tensor, Tensor]:
        """ids [B, T] and mask [B, T] bool, True = prompt."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.pad_id, dtype=torch.int64)
        mask = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[row, width - len(prompt) :] = True
        return ids.to(device), mask.to(device)

    def _forward(self, ids: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()


def _choose(logits: Tensor, uniform: Tensor, sampling: SamplingSection) -> Sampled:
    if sampling.temperature == 0:
        return greedy(logits)
    kept = sampling_logits(logits, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
    return sample_inverse_cdf(kept, uniform)
