"""The vLLM rollout as trainers use it: push the weights, draw answers, compare log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Ids
from rlhf.errors import EngineError
from rlhf.rollout.base import Floats, Rollouts
from rlhf.rollout.vllm.process import EngineProcess
from rlhf.rollout.vllm.push import push_weights
from rlhf.rollout.vllm.transport import Transport

Ends = Callable[[Sequence[int]], bool]


class Pending(Protocol):
    """Answers being drawn."""

    def result(self) -> Rollouts: ...


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest mean and largest single difference of log-probabilities, nats, between equal weights in two engines."""

    mean: float
    largest: float


# float32 kernels were measured to differ by 4e-6, bfloat16 by .006 on average and .07 at most. A wrong tensor moves
# the mean by tenths of a nat or more.
TOLERANCES = {
    torch.float32: Tolerance(1e-4, 1e-3),
    torch.float16: Tolerance(0.01, 0.1),
    torch.bfloat16: Tolerance(0.05, 0.5),
}
CHECKED_ROWS, CHECKED_LENGTH = 8, 16
MOST_TOGETHER = 256  # answers of one request; vLLM refuses more than 16,384


@dataclass(slots=True)
class VllmRollout:
    """Answers of an engine process with the weights of the last push, or of a model's folder.

    Args:
        eos: the ids that end an answer.
        ends_for: stop texts to the check that `TransformersRollout` makes after each token, or None without any.
        transport_of: makes the transport of a push from its buffer's size in bytes; None for an engine that has read
            the weights itself, into which nothing can be pushed.
        vocabulary: tokens of the policy.
    """

    process: EngineProcess
    eos: tuple[int, ...]
    ends_for: Callable[[Sequence[str]], Ends | None]
    transport_of: Callable[[int], Transport] | None
    dtype: torch.dtype
    bucket_bytes: int
    vocabulary: int
    sleeps: bool = False
    checked: bool = False

    def push(self, model: Any) -> EngineError | None:
        """Wakes the engine and gives it the weights of a Hugging Face model, which may be partitioned: every rank calls
        this together. A failure of this rank's engine is returned, so that ranks can agree on it."""
        assert self.transport_of is not None, "this engine has read a folder"
        failure = self._try("wake", tags=["weights"]) if self.sleeps else None
        pushed = push_weights(
            self.process,
            model,
            self.transport_of,
            dtype=self.dtype,
            bucket_bytes=self.bucket_bytes,
            failure=failure,
        )
        if pushed is None and self.sleeps:
            return self._try("wake", tags=["kv_cache"])
        return pushed

    def check_rows(self) -> list[Ids]:
        """Fixed rows whose log-probabilities are compared before the first answer."""
        return check_rows(self.vocabulary)

    def check(self, expected: Sequence[Floats]) -> float:
        """Compares the engine's log-probabilities of `check_rows` with the trainer's, of the second token on in nats;
        the mean difference.

        Raises: EngineError when they differ by more than the tolerance of the type of the weights.
        """
        rows = self.check_rows()
        weights = "the first push" if self.transport_of is not None else "the engine has read the model"
        answer = self.process.request(
            "score",
            "scored",
            np.concatenate(rows).tobytes(),
            lengths=[len(row) for row in rows],
        )
        theirs = np.concatenate(answer.arrays(np.float32, answer.fields["lengths"]))
        gaps = np.abs(theirs - np.concatenate(list(expected)))
        gaps = np.where(np.isfinite(gaps), gaps, np.inf)
        allowed = TOLERANCES[self.dtype]
        mean, largest = float(gaps.mean()), float(gaps.max())
        if mean > allowed.mean or largest > allowed.largest:
            raise EngineError(
                f"after {weights} the engine's log-probabilities of {CHECKED_ROWS} rows differ from the trainer's "
                f"by {mean:.3g} nats on average and {largest:.3g} at most: a weight is missing or wrong there",
                where="rollout.backend",
                expected=f"at most {allowed.mean:g} on average and {allowed.largest:g} for a token in {self.dtype}",
                fix="set rollout.backend=transformers for this model, and report it",
            )
        self.checked = True
        return mean

    def start(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> PendingRollouts:
        """Begins to draw one answer per prompt; no other request may be made until the result is taken.

        An answer depends on its prompt, its stream and the weights alone. Its random numbers are those of the seed
        `stream_seed(stream[:-1]) + stream[-1]`: answers to one prompt with consecutive last numbers are one request,
        whose prompt is read once.
        """
        groups = request_groups(prompts, streams, greedy=sampling.temperature == 0)
        if groups:
            first = [group[0] for group in groups]
            self.process.send(
                "generate",
                np.concatenate([prompts[item] for item in first]).astype(np.int32).tobytes(),
                lengths=[len(prompts[item]) for item in first],
                numbers=[len(group) for group in groups],
                seeds=[stream_seed(streams[item][:-1]) + streams[item][-1] for item in first],
                sampling={
                    "max_new_tokens": sampling.max_new_tokens,
                    "temperature": sampling.temperature,
                    "top_k": sampling.top_k,
                    "top_p": sampling.top_p,
                    "stop": list(sampling.stop),
                    "eos": list(self.eos),
                },
            )
        return PendingRollouts(self.process, groups, self.ends_for(sampling.stop), self.eos)

    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts:
        """As `start`, and waits. Raises: EngineError."""
        return self.start(prompts, streams, sampling).result()

    def rest(self) -> None:
        """Frees the engine's weights and cache, where it shares the trainer's GPU. Raises: EngineError."""
        if self.sleeps:
            self.process.request("sleep")

    def close(self) -> None:
        """Ends the engine."""
        self.process.close()

    def _try(self, kind: str, **fields: Any) -> EngineError | None:
        try:
            self.process.request(kind, **fields)
        except EngineError as error:
            return error
        return None


@dataclass(frozen=True, slots=True)
class PendingRollouts:
    """Answers of one `generate` request; `groups` are the items of each of its prompts."""

    process: EngineProcess
    groups: list[list[int]]
    ends: Ends | None
    eos: tuple[int, ...]

    def result(self) -> Rollouts:
        """Waits for the answers. Raises: EngineError."""
        if not self.groups:
            return Rollouts([], [], [])
        message = self.process.receive("answers")
        lengths, finished = message.fields["lengths"], message.fields["finished"]
        tokens = message.arrays(np.int32, lengths)
        logprobs = message.arrays(np.float32, lengths, offset=4 * sum(lengths))
        order = [item for group in self.groups for item in group]
        found = {
            item: self._trimmed(*answer)
            for item, answer in zip(order, zip(tokens, logprobs, finished, strict=True), strict=True)
        }
        answers = [found[item] for item in range(len(order))]
        return Rollouts([each[0] for each in answers], [each[1] for each in answers], [each[2] for each in answers])

    def _trimmed(self, tokens: Ids, logprobs: Floats, finished: bool) -> tuple[Ids, Floats, bool]:
        """An answer up to the first token after which it ends, as the transformers rollout decides it."""
        for count, token in enumerate(tokens.tolist(), start=1):
            if token in self.eos or (self.ends is not None and self.ends(tokens[:count].tolist())):
                return tokens[:count].copy(), logprobs[:count].copy(), True
        return tokens.copy(), logprobs.copy(), finished


def check_rows(vocabulary: int) -> list[Ids]:
    """Rows of ids whose log-probabilities two engines with the same weights must agree on."""
    numbers = np.random.default_rng(8)
    return [numbers.integers(vocabulary, size=CHECKED_LENGTH).astype(np.int32) for _ in range(CHECKED_ROWS)]


def stream_seed(stream: tuple[int, ...]) -> int:
    """The seed of the answer 0 of a stream; that of answer k is k more."""
    return int(np.random.default_rng(stream).integers(2**48))


def request_groups(prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], *, greedy: bool) -> list[list[int]]:
    """Items that one request answers: the same prompt, and streams whose last numbers follow one another."""
    order = sorted(
        range(len(prompts)), key=lambda item: (streams[item][:-1], prompts[item].tobytes(), streams[item][-1])
    )
    if greedy:  # vLLM draws one greedy answer a request
        return [[item] for item in range(len(prompts))]

    def run(place: int) -> tuple[Any, ...]:
        item = order[place]
        number = streams[item][-1]
        return streams[item][:-1], prompts[item].tobytes(), number - place, number // MOST_TOGETHER

    return [[order[place] for place in places] for _, places in groupby(range(len(order)), key=run)]


def occurrences(keys: Iterable[Any]) -> list[int]:
    """For each key how often it came before."""
    seen: dict[Any, int] = {}
    counts = []
    for key in keys:
        counts.append(seen.get(key, 0))
        seen[key] = counts[-1] + 1
    return counts
