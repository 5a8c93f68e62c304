"""Answers drawn one iteration ahead, while the trainer learns (rollout.overlap), and their form in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf.data.encode import EncodedPrompt
from rlhf.errors import CheckpointError
from rlhf.train.policy.experience import AnswersBegun
from rlhf.train.policy.samples import Sample


class Ahead:
    """The request for the next iteration's answers, from its beginning in an iteration to the end of that iteration."""

    def __init__(self) -> None:
        self._begun: AnswersBegun | None = None

    def begin(self, answers: AnswersBegun) -> None:
        """Keeps a request that the engines have begun."""
        assert self._begun is None, "the answers begun before were not taken"
        self._begun = answers

    def take(self) -> list[dict[str, Any]]:
        """Waits for the answers, as JSON; empty when none were begun. Raises: EngineError on every rank."""
        begun, self._begun = self._begun, None
        return [] if begun is None else as_json(begun.result())


def as_json(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Answers as a checkpoint holds them: `row` is the number of the prompt. float32 survives JSON exactly."""
    return [
        {
            "row": sample.prompt.row,
            "tokens": sample.response.tolist(),
            "logprobs": sample.old_logprobs.tolist(),
            "finished": bool(sample.finished),
        }
        for sample in samples
    ]


def from_json(answers: Sequence[dict[str, Any]], prompts: Sequence[EncodedPrompt]) -> list[Sample]:
    """The answers to `prompts` of `as_json`. Raises: CheckpointError when they are answers to other prompts."""
    if [each["row"] for each in answers] != [prompt.row for prompt in prompts]:
        raise CheckpointError(
            "the checkpoint's answers of the next iteration are to other prompts than those that come next",
            where="rollout.overlap",
            fix="resume with the data and ppo.rollout_size of the run, or from an earlier checkpoint",
        )
    return [
        Sample(
            prompt,
            np.asarray(each["tokens"], np.int32),
            each["finished"],
            np.asarray(each["logprobs"], np.float32),
        )
        for each, prompt in zip(answers, prompts, strict=True)
    ]
