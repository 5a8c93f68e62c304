"""The decode loop of rollouts and of the service: continuous batching over the slots of one cache.

Prompts are prefilled as one packed row, once for all answers to a prompt. Ended answers leave their slots and waiting
ones take their place. Each answer has its own random numbers and settings, and the log-probability of each token is
that of the distribution it was sampled from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from rlhf.data.encode import Ids
from rlhf.errors import ModelError
from rlhf.models.attention import PACKED_SDPA, PACKED_VARLEN, no_mask
from rlhf.ops.logprobs import SampledTokens, greedy, sample_inverse_cdf, sampling_logits
from rlhf.ops.segments import Segments
from rlhf.rollout.cache import SlotCache, enter, rearranged

KEEP_ABOVE = 0.75  # slots are rearranged when a smaller share of them is active
ENTER_IN_PLACE = 8  # an eighth of the slots may enter without a rearrangement
PREFILL_TOKENS = 4096  # of prompts in one forward pass
ROOM = 256  # columns allocated for further tokens; when they are used up, the cache is rearranged


class Decoding(NamedTuple):
    """Sampling settings; temperature 0 is greedy, top_k 0 and top_p 1 keep all tokens."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class TopLogprobs(NamedTuple):
    """Log-probability of the sampled token and the `top` alternatives as (id, log-probability), in nats: of the model's
    own distribution, at temperature 1 and before top-k and top-p."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(slots=True, eq=False)
class ActiveSequence:
    """One answer being decoded.

    Args:
        prompt: ids it follows.
        draws: uniform numbers in [0, 1), one per token; their count is the most tokens the answer may have.
        ends: called with the tokens so far after each token; True ends the answer as EOS does.
        num_likeliest: record the log-probability of each token with so many alternatives; None records nothing.
    """

    prompt: Ids
    draws: npt.NDArray[np.float64]
    decoding: Decoding = Decoding()  # noqa: RUF009  # immutable
    ends: Callable[[Sequence[int]], bool] | None = None
    num_likeliest: int | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    ended: bool = False
    finished: bool = False

    @property
    def limit(self) -> int:
        """Most tokens it may have."""
        return len(self.draws)

    @property
    def next_draw(self) -> float:
        """The random number of its next token; for an ended answer, whose token is dropped, the last one."""
        return float(self.draws[min(len(self.tokens), len(self.draws) - 1)])

    @property
    def cached(self) -> int:
        """Tokens of prompt and answer in the cache: all but the newest."""
        return len(self.prompt) + len(self.tokens) - 1

    def append(self, token: int, logprob: float, eos_id: int) -> None:
        """Adds a token; EOS, the token limit or `ends` end the answer."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.finished = token == eos_id or (self.ends is not None and self.ends(self.tokens))
        self.ended = self.finished or len(self.tokens) == self.limit


class Decoder:
    """Decodes answers with a Hugging Face causal LM that has whole weights and was loaded by this package.

    Args:
        model: the causal LM, in eval mode.
        eos_id: ends an answer.
        num_slots: answers decoded together.
        enter_above: waiting answers enter when the active share of the slots they could fill is no larger; 1 lets one
            in at once, less waits until several can enter together.

    Raises: ModelError for a model that was not loaded by this package.
    """

    def __init__(self, model: Any, eos_id: int, *, num_slots: int, enter_above: float = KEEP_ABOVE) -> None:
        if model.config._attn_implementation not in (PACKED_SDPA, PACKED_VARLEN):
            raise ModelError("the rollout needs a model loaded by this package", fix="use rlhf.models.loading")
        self._model, self._eos_id = model, eos_id
        self._num_slots, self._enter_above = num_slots, enter_above
        self._device = next(model.parameters()).device
        self._waiting: deque[ActiveSequence] = deque()
        self._slots: list[ActiveSequence] = []
        self._cache: SlotCache | None = None

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
        self._slots, self._cache = [], None

    @torch.no_grad()
    def step(self) -> list[ActiveSequence]:
        """One forward pass: a token for every slot, or the first of those that enter. Returns the answers that grew.

        Raises: ValueError for logits that are not finite; call `clear` before the next step.
        """
        keep = [slot for slot, answer in enumerate(self._slots) if not answer.ended]
        could_enter = min(self._num_slots - len(keep), len(self._waiting))
        full = self._cache is not None and self._cache.room == 0
        crowded = len(keep) > KEEP_ABOVE * len(self._slots)
        late = could_enter > 0 and len(keep) <= self._enter_above * (len(keep) + could_enter)
        if keep and crowded and not late and not full:
            return self._decode()
        return self._arrange(keep, full=full)

    def _arrange(self, keep: list[int], *, full: bool) -> list[ActiveSequence]:
        """Frees the slots of ended answers, prefills waiting ones into them and samples their first token."""
        entering = self._admitted(self._num_slots - len(keep))
        if not keep and not entering:
            self._slots, self._cache = [], None
            return []
        prefilled, spans, logits = self._prefill([answer.prompt for answer in entering])
        if not full and self._fits_in_place(keep, entering):
            assert self._cache is not None
            free = [slot for slot, answer in enumerate(self._slots) if answer.ended][: len(entering)]
            enter(self._cache, free, prefilled, spans)
            for slot, answer in zip(free, entering, strict=True):
                self._slots[slot] = answer
        else:
            kept = [self._slots[slot] for slot in keep]
            room = min(ROOM, max(answer.limit - max(len(answer.tokens) - 1, 0) for answer in (*kept, *entering)))
            lengths = [answer.cached for answer in kept]
            self._cache = rearranged(self._cache, keep, lengths, prefilled, spans, room)
            self._slots = [*kept, *entering]
        return self._draw(entering, logits) if entering else []

    def _fits_in_place(self, keep: list[int], entering: list[ActiveSequence]) -> bool:
        """Whether few enter, into free slots, with prompts no longer than the columns written so far."""
        if self._cache is None or not entering:
            return False
        few = max(1, len(self._slots) // ENTER_IN_PLACE)
        left_free = len(self._slots) - len(keep) - len(entering)
        longest = max(len(answer.prompt) for answer in entering)
        return len(entering) <= few and 0 <= left_free <= few and longest <= self._cache.length

    def _admitted(self, count: int) -> list[ActiveSequence]:
        """The next answers, at most `count` of them and as many as fit into one prefill."""
        chosen: list[ActiveSequence] = []
        tokens, seen = 0, set()
        while self._waiting and len(chosen) < count:
            prompt = self._waiting[0].prompt
            key = prompt.tobytes()
            tokens += 0 if key in seen else len(prompt)
            if chosen and tokens > PREFILL_TOKENS:
                break
            seen.add(key)
            chosen.append(self._waiting.popleft())
        return chosen

    def _prefill(self, prompts: list[Ids]) -> tuple[Any, list[tuple[int, int]], Tensor]:
        """The distinct prompts as one packed row: its cache, each prompt's columns, and logits [prompts, V]."""
        if not prompts:
            return None, [], torch.empty(0)
        numbers: dict[bytes, int] = {}
        order = [numbers.setdefault(prompt.tobytes(), len(numbers)) for prompt in prompts]
        distinct = [np.frombuffer(key, dtype=prompts[0].dtype) for key in numbers]
        ends = np.cumsum([len(prompt) for prompt in distinct])
        ids = torch.from_numpy(np.concatenate(distinct).astype(np.int64)).to(self._device)
        places = torch.from_numpy(np.concatenate([np.arange(len(prompt)) for prompt in distinct])).to(self._device)
        cache = DynamicCache()
        output = self._model(
            input_ids=ids[None],
            attention_mask=no_mask(self._device),
            position_ids=places[None],
            segments=Segments.of_lengths([len(prompt) for prompt in distinct]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(ends - 1).to(self._device),
        )
        bounds = [(int(end) - len(prompt), int(end)) for prompt, end in zip(distinct, ends, strict=True)]
        return cache, [bounds[number] for number in order], output.logits[0, order].float()

    def _decode(self) -> list[ActiveSequence]:
        assert self._cache is not None
        newest = torch.tensor([answer.tokens[-1] for answer in self._slots])
        positions = torch.tensor([answer.cached for answer in self._slots])
        logits = self._model(
            input_ids=newest.to(self._device)[:, None],
            attention_mask=self._cache.next_mask(),
            position_ids=positions.to(self._device)[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return self._draw(self._slots, logits.float())

    def _draw(self, answers: Sequence[ActiveSequence], logits: Tensor) -> list[ActiveSequence]:
        """Samples the next token of each answer from its logits [answers, V]; that of an ended one is dropped."""
        uniform = torch.from_numpy(np.array([answer.next_draw for answer in answers])).to(self._device)
        chosen = _choose(logits, uniform, [answer.decoding for answer in answers])
        tokens, logprobs = chosen.tokens.tolist(), chosen.logprobs.tolist()
        _note_top_logprobs(answers, logits, chosen.tokens)
        grown = []
        for answer, token, logprob in zip(answers, tokens, logprobs, strict=True):
            if not answer.ended:
                answer.append(token, logprob, self._eos_id)
                grown.append(answer)
        return grown


def _choose(logits: Tensor, uniform: Tensor, decodings: Sequence[Decoding]) -> SampledTokens:
    """One token per row; rows of equal settings are sampled together."""
    if all(each is decodings[0] for each in decodings) or len(set(decodings)) == 1:
        return _choose_alike(logits, uniform, decodings[0])
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    for decoding in set(decodings):
        rows = torch.tensor([row for row, each in enumerate(decodings) if each == decoding], device=logits.device)
        tokens[rows], logprobs[rows] = _choose_alike(logits[rows], uniform[rows], decoding)
    return SampledTokens(tokens, logprobs)


def _choose_alike(logits: Tensor, uniform: Tensor, decoding: Decoding) -> SampledTokens:
    if decoding.temperature == 0:
        return greedy(logits)
    kept = sampling_logits(logits, temperature=decoding.temperature, top_k=decoding.top_k, top_p=decoding.top_p)
    return sample_inverse_cdf(kept, uniform)


def _note_top_logprobs(answers: Sequence[ActiveSequence], logits: Tensor, tokens: Tensor) -> None:
    """Records the top log-probabilities, for the answers that ask for them."""
    wanting = [row for row, answer in enumerate(answers) if answer.num_likeliest is not None and not answer.ended]
    if not wanting:
        return
    logprobs = logits[wanting].log_softmax(-1)
    own = logprobs.gather(1, tokens[wanting, None])[:, 0].tolist()
    most = min(max(answers[row].num_likeliest or 0 for row in wanting), logits.shape[1])
    values, ids = logprobs.topk(most, dim=-1)
    for row, logprob, top_ids, top_values in zip(wanting, own, ids.tolist(), values.tolist(), strict=True):
        count = answers[row].num_likeliest
        answers[row].top_logprobs.append(TopLogprobs(logprob, tuple(zip(top_ids, top_values, strict=True))[:count]))
