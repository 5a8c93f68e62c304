"""An answer while it is decoded, and how its tokens are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlhf.data.encode import Ids
from rlhf.rollout.drafts import AnswerDraft, DraftRows


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
        stream: names its random stream, for an engine that draws numbers of its own.
        num_likeliest: record the log-probability of each token with so many alternatives; None records nothing.
        draft: an earlier answer to the prompt, of which a beginning is kept as far as it is today's; None draws all.
        chances: uniform numbers in [0, 1), one per token of the draft, that decide how far.
        rows: record each token's distribution, to make this answer a draft; None records nothing.

    num_accepted: tokens of the draft that were kept.
    """

    prompt: Ids
    draws: npt.NDArray[np.float64]
    decoding: Decoding = Decoding()  # noqa: RUF009  # immutable
    ends: Callable[[Sequence[int]], bool] | None = None
    num_likeliest: int | None = None
    stream: tuple[int, ...] = ()
    draft: AnswerDraft | None = None
    chances: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    rows: DraftRows | None = None
    num_accepted: int = 0
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
    def proposed(self) -> int:
        """Tokens of the draft that are considered: no more than the answer may have."""
        return 0 if self.draft is None else min(len(self.draft.tokens), self.limit)

    @property
    def context(self) -> Ids:
        """What the prefill reads: the prompt and the draft."""
        if self.draft is None:
            return self.prompt
        return np.concatenate([self.prompt, self.draft.tokens[: self.proposed]])

    @property
    def cached(self) -> int:
        """Tokens of prompt and answer in the cache: all but the newest."""
        return len(self.prompt) + len(self.tokens) - 1

    @property
    def last_position(self) -> int:
        """The highest position of a token that is read to draw another."""
        return len(self.prompt) + self.limit - 1

    def append(self, token: int, logprob: float, eos_id: int) -> None:
        """Adds a token; EOS, the token limit or `ends` end the answer."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.finished = token == eos_id or (self.ends is not None and self.ends(self.tokens))
        self.ended = self.finished or len(self.tokens) == self.limit
