"""The decode loop of rollouts and of the service: continuous batching over the slots of one cache.

Prompts are prefilled as one packed row, once for all answers to a prompt, with the draft of an answer that has one: the
same pass decides how much of the draft stays. Ended answers leave their slots and waiting ones take their place. Each
answer has its own random numbers and settings, and the log-probability of each token is that of the distribution it was
sampled from.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from rlhf.data.transfer import moved_together
from rlhf.errors import ModelError
from rlhf.models.attention import PACKED_SDPA, PACKED_VARLEN, no_mask
from rlhf.ops.segments import Segments
from rlhf.rollout.cache import Entering, Kept, PromptLayer, SlotCache, cache_argument, enter, rearranged
from rlhf.rollout.capacity import CacheBuckets
from rlhf.rollout.graphs import Capture, GraphedSteps, Graphs
from rlhf.rollout.prefill import PrefillRow
from rlhf.rollout.sampling import decoding_groups, draw_tokens, record_top_logprobs
from rlhf.rollout.sequences import ActiveSequence
from rlhf.rollout.step import DecodeStep, SlotState
from rlhf.rollout.verification import record_drawn, replace_rejected, verify

KEEP_ABOVE = 0.75  # slots are rearranged when a smaller share of them is active
ENTER_IN_PLACE = 8  # an eighth of the slots may enter without a rearrangement
PREFILL_TOKENS = 4096  # of prompts and drafts in one forward pass
DRAFT_LOGITS = {"cpu": 2**24, "cuda": 2**26}  # entries of the logits of drafts in one forward pass (64, 256 MiB)
ROOM = 256  # columns allocated for further tokens; when they are used up, the cache is rearranged


class Decoder:
    """Decodes answers with a Hugging Face causal LM that has whole weights and was loaded by this package.

    Args:
        model: the causal LM, in eval mode.
        eos_id: ends an answer.
        num_slots: answers decoded together.
        enter_above: waiting answers enter when the active share of the slots they could fill is no larger; 1 lets one
            in at once, less waits until several can enter together.
        graphs: whether steps are captured in CUDA graphs, as `rollout.cuda_graphs`.
        buckets: shapes of the cache; None: those of the model's device.
        capture: what records a step; None: CUDA graphs on a GPU.

    Raises: ModelError for a model that was not loaded by this package.
    """

    def __init__(
        self,
        model: Any,
        eos_id: int,
        *,
        num_slots: int,
        enter_above: float = KEEP_ABOVE,
        graphs: Graphs = "auto",
        buckets: CacheBuckets | None = None,
        capture: Capture | None = None,
    ) -> None:
        if model.config._attn_implementation not in (PACKED_SDPA, PACKED_VARLEN):
            raise ModelError("the rollout needs a model loaded by this package", fix="use rlhf.models.loading")
        self._model, self._eos_id = model, eos_id
        self._cache_argument = cache_argument(model)
        self._num_slots, self._enter_above = num_slots, enter_above
        self._device = next(model.parameters()).device
        vocabulary = model.config.get_text_config().vocab_size
        self._most_proposed = DRAFT_LOGITS["cpu" if self._device.type == "cpu" else "cuda"] // vocabulary
        self._waiting: deque[ActiveSequence] = deque()
        self._slots: list[ActiveSequence] = []
        self._buckets = buckets or CacheBuckets.of(self._device)
        self._steps = GraphedSteps(graphs, self._device, capture)
        self._step: DecodeStep | None = None

    @property
    def num_running(self) -> int:
        """Answers in slots that have not ended."""
        return sum(not answer.ended for answer in self._slots)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._slots)

    def admit(self, answers: Iterable[ActiveSequence]) -> None:
        """Queues answers, which take slots in this order."""
        self._waiting.extend(answers)

    def cancel(self, answer: ActiveSequence) -> None:
        """Ends an answer; its slot is free at the next step."""
        answer.ended = True
        if answer in self._waiting:
            self._waiting.remove(answer)

    def clear(self) -> None:
        self._waiting.clear()
        self._slots, self._step = [], None

    def close(self) -> None:
        """Does nothing: the model belongs to the caller."""

    @torch.no_grad()
    def step(self) -> list[ActiveSequence]:
        """One forward pass: a token for every slot, or the first of those that enter. Returns the answers that grew.

        Raises: ValueError for logits that are not finite; call `clear` before the next step.
        """
        keep = [slot for slot, answer in enumerate(self._slots) if not answer.ended]
        could_enter = min(self._num_slots - len(keep), len(self._waiting))
        full = self._step is not None and self._step.cache.room == 0
        crowded = len(keep) > KEEP_ABOVE * len(self._slots)
        late = could_enter > 0 and len(keep) <= self._enter_above * (len(keep) + could_enter)
        if keep and crowded and not late and not full:
            return self._decode()
        return self._arrange(keep, full=full)

    def _decode(self) -> list[ActiveSequence]:
        assert self._step is not None
        output = self._steps.run(self._step)
        self._step.cache.advance()
        return self._grown(self._slots, output.drawn, output.logits)

    def _arrange(self, keep: list[int], *, full: bool) -> list[ActiveSequence]:
        """Frees the slots of ended answers, prefills waiting ones into them and samples their first token."""
        entering = self._admitted(self._num_slots - len(keep))
        if not keep and not entering:
            self._slots, self._step = [], None
            return []
        prefilled, entering, grown = self._prefilled(entering)
        if grown and not entering and not (keep and full):  # drafts that are whole answers take no slot
            return grown
        if prefilled is not None and not full and self._fits_in_place(keep, entering):
            self._enter_in_place(entering, prefilled)
        else:
            self._rearrange(keep, entering, prefilled)
        return grown

    def _enter_in_place(self, entering: list[ActiveSequence], prefilled: Entering) -> None:
        assert self._step is not None
        cache, state = self._step.cache, self._step.state
        free = [slot for slot, answer in enumerate(self._slots) if answer.ended][: len(entering)]
        enter(cache, free, prefilled)
        for slot, answer in zip(free, entering, strict=True):
            self._slots[slot] = answer
        state.seat(free, entering, cache.length)
        self._step = self._with_groups(cache, state)

    def _rearrange(self, keep: list[int], entering: list[ActiveSequence], prefilled: Entering | None) -> None:
        """All answers in slots without a gap, in memory with columns for further tokens."""
        kept = [self._slots[slot] for slot in keep]
        self._slots = [*kept, *entering]
        # An entering answer has its first token: of it, as of the others, all tokens but the newest are cached.
        width = max(answer.cached for answer in self._slots)
        most = max(answer.limit - len(answer.tokens) for answer in self._slots)
        shape = self._buckets.slots(len(self._slots)), self._buckets.columns(width + max(1, min(ROOM, most)))
        old = self._step
        staying = None if old is None else Kept(old.cache, keep, [answer.cached for answer in kept])
        cache = rearranged(staying, prefilled, shape, fixed=self._buckets.fixed)
        again = old is not None and cache.mask is old.cache.mask
        state = old.state if again and old is not None else SlotState.empty(shape, self._device)
        state.seat(range(len(self._slots)), self._slots, cache.length)
        self._step = self._with_groups(cache, state)

    def _with_groups(self, cache: SlotCache, state: SlotState) -> DecodeStep:
        groups = decoding_groups([answer.decoding for answer in self._slots], self._device)
        return DecodeStep(self._model, self._cache_argument, cache, state, groups)

    def _fits_in_place(self, keep: list[int], entering: list[ActiveSequence]) -> bool:
        """Whether few enter, into free slots, with prompts no longer than the columns written so far."""
        if self._step is None or not entering:
            return False
        few = max(1, len(self._slots) // ENTER_IN_PLACE)
        left_free = len(self._slots) - len(keep) - len(entering)
        longest = max(answer.cached for answer in entering)
        return len(entering) <= few and 0 <= left_free <= few and longest <= self._step.cache.length

    def _admitted(self, count: int) -> list[ActiveSequence]:
        """The next answers, at most `count` of them and as many as fit into one prefill."""
        chosen: list[ActiveSequence] = []
        tokens, proposed, seen = 0, 0, set()
        while self._waiting and len(chosen) < count:
            context, answer = self._waiting[0].context, self._waiting[0]
            key = context.tobytes()
            tokens += 0 if key in seen else len(context)
            proposed += answer.proposed
            if chosen and (tokens > PREFILL_TOKENS or proposed > self._most_proposed):
                break
            seen.add(key)
            chosen.append(self._waiting.popleft())
        return chosen

    def _prefilled(
        self, answers: list[ActiveSequence]
    ) -> tuple[Entering | None, list[ActiveSequence], list[ActiveSequence]]:
        """Prefills the distinct prompts with their drafts as one packed row, keeps of the drafts what is kept, and
        draws the next token: the row's cache, the answers that take a slot, and those that grew."""
        if not answers:
            return None, [], []
        row = PrefillRow.of(answers)
        firsts = row.firsts
        sent = moved_together({**row.tensors, **_next_draws(answers, firsts)}, self._device)
        cache = Cache(layer_class_to_replicate=PromptLayer)
        output = self._model(
            input_ids=sent["ids"][None],
            attention_mask=no_mask(self._device),
            position_ids=sent["positions"][None],
            segments=Segments.of_lengths([len(context) for context in row.contexts]),
            read_positions=sent["read"],
            use_cache=True,
            logits_to_keep=sent["read"],
            **{self._cache_argument: cache},
        )
        logits = output.logits[0].float()
        spans, going = row.spans(answers), list(range(len(answers)))
        if any(answer.proposed for answer in answers):
            verify(answers, logits, firsts, self._eos_id)
            spans, going = row.spans(answers), [item for item in going if not answers[item].ended]
            if not going:
                return None, [], answers
            sent = moved_together(
                _next_draws([answers[item] for item in going], [firsts[item] for item in going]), self._device
            )
        entering = [answers[item] for item in going]
        self._draw_next(entering, logits.index_select(0, sent["places"]), sent["uniform"])
        return Entering(cache, [spans[item] for item in going]), entering, answers

    def _draw_next(self, answers: list[ActiveSequence], logits: Tensor, uniform: Tensor) -> None:
        """Draws the token after the prompt and what was kept of the draft, from logits [B, V] of a prefill."""
        groups = decoding_groups([answer.decoding for answer in answers], self._device)
        drawn = draw_tokens(logits, uniform, groups)
        replace_rejected(answers, logits, uniform, drawn)
        self._grown(answers, drawn, logits)

    def _grown(self, answers: Sequence[ActiveSequence], drawn: Tensor, logits: Tensor) -> list[ActiveSequence]:
        """Appends the drawn tokens [2, S] to the answers that have not ended, and returns these."""
        tokens, logprobs = drawn.tolist()  # the one place where the host waits for the device
        ids = [int(token) for token in tokens[: len(answers)]]
        for row, answer in enumerate(answers):
            if not answer.ended and not math.isfinite(logprobs[row]):
                raise ValueError(f"logits row {row} has NaN, +inf or no finite entry; check model and cuts")
        record_top_logprobs(answers, logits, ids)
        record_drawn(answers, logits)
        grown = []
        for answer, token, logprob in zip(answers, ids, logprobs[: len(answers)], strict=True):
            if not answer.ended:
                answer.append(token, logprob, self._eos_id)
                grown.append(answer)
        return grown


def _next_draws(answers: Sequence[ActiveSequence], firsts: Sequence[int]) -> dict[str, Tensor]:
    """places, uniform [B]: the row of a prefill's logits before each answer's next token, and its random number."""
    places = [first + len(answer.tokens) for answer, first in zip(answers, firsts, strict=True)]
    uniform = np.array([answer.draws[len(answer.tokens)] for answer in answers])
    return {"places": torch.tensor(places), "uniform": torch.from_numpy(uniform)}
