"""The default backend: a batched decode loop over any attention model of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Ids
from rlhf.errors import ConfigError
from rlhf.rollout.base import Rollouts, uniform_draws
from rlhf.rollout.capacity import check_cacheable, slots_for
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.drafts import AnswerDraft, DraftRows
from rlhf.rollout.graphs import Graphs
from rlhf.rollout.sequences import ActiveSequence, Decoding

CHANCES = 1  # added to the name of an answer's random stream: that of the numbers that decide about its draft
STOP_MARGIN = 8  # tokens decoded beyond those of the stop string itself


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Answers, each of them as a draft for the next time, and how many tokens of the drafts given were kept."""

    rollouts: Rollouts
    drafts: list[AnswerDraft]
    num_accepted: int
    num_proposed: int


@dataclass(slots=True)
class TransformersRollout:
    """Decodes with a Hugging Face causal LM that has whole weights and was loaded by this package.

    Args:
        model: the causal LM, in eval mode.
        eos_id: ends an answer.
        decode: ids to text; needed for `sampling.stop` alone.
        graphs: as `rollout.cuda_graphs`.
    """

    model: Any
    eos_id: int
    decode: Callable[[Sequence[int]], str] | None = None
    graphs: Graphs = "auto"

    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts:
        """One answer per prompt. `streams` names the random stream of each answer, so that it depends on neither rank,
        batch nor order.

        Raises: ModelError for an unsupported model or a cache that does not fit; ConfigError for stop strings without
            `decode`.
        """
        return _rollouts(self._decoded(self._answers(prompts, streams, sampling), sampling))

    def redraw(
        self,
        prompts: Sequence[Ids],
        streams: Sequence[tuple[int, ...]],
        sampling: SamplingSection,
        drafts: Sequence[AnswerDraft | None],
        *,
        top: int | None,
    ) -> Redrawn:
        """As `generate`, from an earlier answer to each prompt where there is one; the answers have the same
        distribution, and without a draft they are the same.

        Args:
            top: probabilities that are kept of each token's distribution for the next time; None keeps all.
        """
        answers = self._answers(prompts, streams, sampling)
        for answer, draft, stream in zip(answers, drafts, streams, strict=True):
            answer.draft, answer.rows = draft, DraftRows(top)
            answer.chances = uniform_draws((*stream, CHANCES), answer.proposed)
        self._decoded(answers, sampling)
        return Redrawn(
            _rollouts(answers),
            [answer.rows.draft(answer.tokens) for answer in answers if answer.rows is not None],
            sum(answer.num_accepted for answer in answers),
            sum(answer.proposed for answer in answers),
        )

    def _answers(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> list[ActiveSequence]:
        if sampling.stop and self.decode is None:
            raise ConfigError("stop strings need a tokenizer here", where="sampling.stop", fix="set it to []")
        decoding = Decoding(sampling.temperature, sampling.top_k, sampling.top_p)
        ends = self.ends(sampling.stop)
        return [
            ActiveSequence(prompt, uniform_draws(stream, sampling.max_new_tokens), decoding, ends)
            for prompt, stream in zip(prompts, streams, strict=True)
        ]

    def _decoded(self, answers: list[ActiveSequence], sampling: SamplingSection) -> list[ActiveSequence]:
        """The answers, decoded to their ends."""
        if not answers:
            return answers
        longest = max(len(answer.prompt) for answer in answers) + sampling.max_new_tokens
        check_cacheable(self.model, longest)
        slots = slots_for(self.model, sampling.batch_size, num_answers=len(answers), columns=longest)
        decoder = Decoder(self.model, self.eos_id, num_slots=slots, graphs=self.graphs)
        decoder.admit(sorted(answers, key=lambda answer: len(answer.prompt)))
        while decoder.busy:
            decoder.step()
        return answers

    def ends(self, stops: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """A check whether the newest tokens contain a stop string; None without stop strings."""
        if not stops:
            return None
        decode = self.decode
        assert decode is not None
        reach = max(map(len, stops)) * 3 + STOP_MARGIN  # a Hangul syllable may take 3 tokens

        def stopped(tokens: Sequence[int]) -> bool:
            text = decode(tokens[-reach:])
            return any(stop in text for stop in stops)

        return stopped


def _rollouts(answers: Sequence[ActiveSequence]) -> Rollouts:
    return Rollouts(
        [np.asarray(answer.tokens, np.int32) for answer in answers],
        [np.asarray(answer.logprobs, np.float32) for answer in answers],
        [answer.finished for answer in answers],
    )
