"""The default backend: a batched decode loop over any attention model of transformers.

Prompts are prefilled as one packed row, once for all the answers to a prompt. Answers are written in slots: when
enough have ended, they leave and waiting prompts take their place. Each token's log-probability is taken from the
very distribution it was drawn from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Ids
from rlhf.errors import ConfigError, ModelError
from rlhf.models.attention import PACKED_SDPA, PACKED_VARLEN, no_mask
from rlhf.ops.logprobs import Sampled, greedy, sample_inverse_cdf, sampling_logits
from rlhf.ops.segments import Segments
from rlhf.rollout.base import Rollouts, uniform_draws
from rlhf.rollout.cache import SlotCache, check_cacheable, check_memory, rearranged

REFILL_BELOW = 0.75  # let ended answers go, and new prompts in, when fewer than this share of the slots are at work
PREFILL_TOKENS = 4096  # of prompts in one forward pass
STOP_MARGIN = 8  # tokens read back beyond the stop string's own characters


@dataclass(slots=True)
class TransformersRollout:
    """Decodes with a Hugging Face causal LM that holds whole weights and was loaded by this package.

    Args:
        model: the causal LM, in eval mode.
        eos_id: ends an answer.
        decode: ids to text; needed for `sampling.stop` alone.
    """

    model: Any
    eos_id: int
    decode: Callable[[Sequence[int]], str] | None = None

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts:
        """One answer a prompt; `streams` are named apart, so the same name gives the same draw anywhere.

        Raises: ModelError when the model cannot be decoded so or its cache does not fit; ConfigError for stop strings
            without `decode`.
        """
        if not prompts:
            return Rollouts([], [], [])
        self._check(prompts, sampling)
        work = _Work(prompts, streams, sampling, next(self.model.parameters()).device)
        while work.waiting or work.slots:
            running = len(work.running())
            could_run = min(sampling.batch_size, max(len(work.slots), running + len(work.waiting)))
            if running > REFILL_BELOW * could_run:
                self._decode_step(work)
            else:
                self._rearrange(work)
        return work.rollouts()

    def _check(self, prompts: Sequence[Ids], sampling: SamplingSection) -> None:
        if self.model.config._attn_implementation not in (PACKED_SDPA, PACKED_VARLEN):
            raise ModelError("the rollout needs a model loaded by this package", fix="use rlhf.models.loading")
        if sampling.stop and self.decode is None:
            raise ConfigError("stop strings need a tokenizer here", where="sampling.stop", fix="set it to []")
        longest = max(map(len, prompts)) + sampling.max_new_tokens
        check_cacheable(self.model, longest)
        check_memory(self.model, min(len(prompts), sampling.batch_size), longest)

    def _rearrange(self, work: _Work) -> None:
        """Ended answers leave their slots, waiting prompts are prefilled into free ones and draw their first token."""
        keep = work.running()
        kept = [work.slots[slot] for slot in keep]
        entering = work.admitted(work.sampling.batch_size - len(keep))
        if not kept and not entering:
            work.slots, work.cache = [], None
            return
        prefilled, spans, logits = self._prefill([work.prompts[item] for item in entering])
        work.cache = rearranged(
            work.cache, keep, [work.length(item) for item in kept], prefilled, spans, work.room([*kept, *entering])
        )
        work.slots = [*kept, *entering]
        if entering:
            self._draw(work, entering, logits)

    def _prefill(self, prompts: list[Ids]) -> tuple[Any, list[tuple[int, int]], Tensor]:
        """The distinct prompts as one packed row: its cache, each prompt's columns, and logits [prompts, V]."""
        if not prompts:
            return None, [], torch.empty(0)
        numbers: dict[bytes, int] = {}
        order = [numbers.setdefault(prompt.tobytes(), len(numbers)) for prompt in prompts]
        distinct = [np.frombuffer(key, dtype=prompts[0].dtype) for key in numbers]
        ends = np.cumsum([len(prompt) for prompt in distinct])
        device = next(self.model.parameters()).device
        ids = torch.from_numpy(np.concatenate(distinct).astype(np.int64)).to(device)
        places = torch.from_numpy(np.concatenate([np.arange(len(prompt)) for prompt in distinct])).to(device)
        cache = DynamicCache()
        output = self.model(
            input_ids=ids[None],
            attention_mask=no_mask(device),
            position_ids=places[None],
            segments=Segments.of_lengths([len(prompt) for prompt in distinct]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(ends - 1).to(device),
        )
        bounds = [(int(end) - len(prompt), int(end)) for prompt, end in zip(distinct, ends, strict=True)]
        return cache, [bounds[number] for number in order], output.logits[0, order].float()

    def _decode_step(self, work: _Work) -> None:
        """One token for every slot."""
        assert work.cache is not None
        newest = work.newest()
        logits = self.model(
            input_ids=newest.tokens[:, None],
            attention_mask=work.cache.next_mask(),
            position_ids=newest.positions[:, None],
            past_key_values=work.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._draw(work, work.slots, logits.float())

    def _draw(self, work: _Work, items: list[int], logits: Tensor) -> None:
        """Draws the next token of each item from its logits, and marks those that end with it."""
        chosen = _choose(logits, work.uniform(items), work.sampling)
        work.append(items, chosen, self.eos_id)
        if work.sampling.stop:
            for item in items:
                if not work.ended[item] and self._stops(work.tail(item), work.sampling.stop):
                    work.ended[item] = work.finished[item] = True

    def _stops(self, tail: list[int], stops: Sequence[str]) -> bool:
        assert self.decode is not None
        text = self.decode(tail[-(max(map(len, stops)) * 3 + STOP_MARGIN) :])  # a Hangul syllable may take 3 tokens
        return any(stop in text for stop in stops)


@dataclass(frozen=True, slots=True)
class _Newest:
    """Shapes [slots]: the token each slot feeds next, and its position."""

    tokens: Tensor
    positions: Tensor


@dataclass(slots=True)
class _Work:
    """All answers of one call: waiting, in a slot, or ended."""

    prompts: Sequence[Ids]
    streams: Sequence[tuple[int, ...]]
    sampling: SamplingSection
    device: torch.device
    cache: SlotCache | None = None
    slots: list[int] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    counts: list[int] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    _draws: Any = None
    _tokens: Any = None
    _logprobs: Any = None

    def __post_init__(self) -> None:
        number, limit = len(self.prompts), self.sampling.max_new_tokens
        self.waiting = deque(sorted(range(number), key=lambda item: (len(self.prompts[item]), item)))
        self.counts, self.ended, self.finished = [0] * number, [False] * number, [False] * number
        self._draws = np.stack([uniform_draws(stream, limit) for stream in self.streams])
        self._tokens = np.zeros((number, limit), np.int64)
        self._logprobs = np.zeros((number, limit), np.float32)

    def running(self) -> list[int]:
        """Slots whose answers go on."""
        return [slot for slot, item in enumerate(self.slots) if not self.ended[item]]

    def admitted(self, count: int) -> list[int]:
        """The next prompts, at most `count` of them and as many as fit into one prefill."""
        chosen: list[int] = []
        tokens, seen = 0, set()
        while self.waiting and len(chosen) < count:
            prompt = self.prompts[self.waiting[0]]
            key = prompt.tobytes()
            tokens += 0 if key in seen else len(prompt)
            if chosen and tokens > PREFILL_TOKENS:
                break
            seen.add(key)
            chosen.append(self.waiting.popleft())
        return chosen

    def length(self, item: int) -> int:
        """Tokens of the item in the cache: its newest one is not there yet."""
        return len(self.prompts[item]) + self.counts[item] - 1

    def room(self, items: list[int]) -> int:
        """Columns that these items may still need."""
        return max(self.sampling.max_new_tokens - max(self.counts[item] - 1, 0) for item in items)

    def newest(self) -> _Newest:
        last = [self.counts[item] - 1 for item in self.slots]
        tokens = torch.from_numpy(self._tokens[self.slots, last])
        positions = torch.tensor([self.length(item) for item in self.slots])
        return _Newest(tokens.to(self.device), positions.to(self.device))

    def uniform(self, items: list[int]) -> Tensor:
        """The draw of each item's next token; an answer that has ended is given one, and its token is dropped."""
        last = self.sampling.max_new_tokens - 1
        steps = [min(self.counts[item], last) for item in items]
        return torch.from_numpy(self._draws[items, steps]).to(self.device)

    def append(self, items: list[int], chosen: Sampled, eos_id: int) -> None:
        """Writes each running item's token; one that is EOS or the last allowed ends it."""
        tokens, logprobs = chosen.tokens.tolist(), chosen.logprobs.tolist()
        for item, token, logprob in zip(items, tokens, logprobs, strict=True):
            if self.ended[item]:
                continue
            place = self.counts[item]
            self._tokens[item, place], self._logprobs[item, place] = token, logprob
            self.counts[item] = place + 1
            self.finished[item] = token == eos_id
            self.ended[item] = token == eos_id or place + 1 == self.sampling.max_new_tokens

    def tail(self, item: int) -> list[int]:
        """The item's tokens so far."""
        return self._tokens[item, : self.counts[item]].tolist()

    def rollouts(self) -> Rollouts:
        return Rollouts(
            [self._tokens[item, :count].astype(np.int32) for item, count in enumerate(self.counts)],
            [self._logprobs[item, :count].copy() for item, count in enumerate(self.counts)],
            self.finished,
        )


def _choose(logits: Tensor, uniform: Tensor, sampling: SamplingSection) -> Sampled:
    if sampling.temperature == 0:
        return greedy(logits)
    kept = sampling_logits(logits, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)
    return sample_inverse_cdf(kept, uniform)
