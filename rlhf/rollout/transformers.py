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
from rlhf.rollout.graphs import Graphs
from rlhf.rollout.sequences import ActiveSequence, Decoding

STOP_MARGIN = 8  # tokens decoded beyond those of the stop string itself


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
        if not prompts:
            return Rollouts([], [], [])
        if sampling.stop and self.decode is None:
            raise ConfigError("stop strings need a tokenizer here", where="sampling.stop", fix="set it to []")
        longest = max(map(len, prompts)) + sampling.max_new_tokens
        check_cacheable(self.model, longest)
        slots = slots_for(self.model, sampling.batch_size, num_answers=len(prompts), columns=longest)
        decoder = Decoder(self.model, self.eos_id, num_slots=slots, graphs=self.graphs)
        decoding = Decoding(sampling.temperature, sampling.top_k, sampling.top_p)
        ends = self.ends(sampling.stop)
        answers = [
            ActiveSequence(prompt, uniform_draws(stream, sampling.max_new_tokens), decoding, ends)
            for prompt, stream in zip(prompts, streams, strict=True)
        ]
        decoder.admit(sorted(answers, key=lambda answer: len(answer.prompt)))
        while decoder.busy:
            decoder.step()
        return Rollouts(
            [np.asarray(answer.tokens, np.int32) for answer in answers],
            [np.asarray(answer.logprobs, np.float32) for answer in answers],
            [answer.finished for answer in answers],
        )

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
