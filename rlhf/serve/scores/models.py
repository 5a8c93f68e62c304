"""The reward models of one service, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi.concurrency import run_in_threadpool

from rlhf.config.flag_values import Dtype
from rlhf.data.packing import Tree
from rlhf.models.loading import artifact_model_path, check_model_path, model_config
from rlhf.models.scoring import RewardScorer, load_scorer
from rlhf.serve.chat.models import require_safetensors
from rlhf.serve.errors import ApiError

RETRY_AFTER_S = 1.0
CLASSIFIER = "ForSequenceClassification"


@dataclass
class ServedScorer:
    """A reward model in service. `context` limits the tokens of prompt and answer, `queue` the requests that wait.

    One request at a time is scored; the lock is the event loop's, so that those that wait hold no thread.
    """

    name: str
    created_at: int
    context: int
    label: str
    scorer: RewardScorer
    queue: int
    _waiting: int = 0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def scores(self, made: Callable[[], Iterable[Tree]]) -> tuple[list[Tree], list[list[float]]]:
        """The trees of a request, made off the event loop, and the scores of each one's answers.

        Raises: ApiError 429 when too many wait, before anything is made; 400 for what is too long; what `made` raises.
        """
        if self._waiting > self.queue:
            message = "Too many requests wait for this model. Try again later."
            raise ApiError(429, message, type="requests", code="queue_full", retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            trees = await run_in_threadpool(lambda: list(made()))
            self._require_fitting(trees)
            async with self._lock:
                return trees, await run_in_threadpool(self.scorer.scores, trees)
        finally:
            self._waiting -= 1

    def _require_fitting(self, trees: Sequence[Tree]) -> None:
        longest = max(len(prompt) + len(answer) for prompt, answers in trees for answer in answers)
        if longest > self.context:
            message = f"This model's maximum context length is {self.context} tokens. A prompt with its answer has "
            message += f"{longest} tokens."
            raise ApiError(400, message, code="context_length_exceeded")


class Scorers:
    """All reward models in service."""

    def __init__(self, dtype: Dtype = "auto", queue: int = 128) -> None:
        self._dtype, self._queue = dtype, queue
        self._scorers: dict[str, ServedScorer] = {}

    def add(self, name: str, path: str) -> ServedScorer:
        """Loads a reward model and puts it into service. Raises: ModelError or TokenizerError."""
        require_safetensors(artifact_model_path(path), key="--model")
        scorer = load_scorer(path, self._dtype, key="--model")
        config = scorer.model.model.config
        context = int(getattr(config.get_text_config(), "max_position_embeddings", None) or scorer.max_length)
        label = str((config.id2label or {}).get(0, "LABEL_0"))
        found = ServedScorer(name, int(time.time()), context, label, scorer, self._queue)
        self._scorers[name] = found
        return found

    def all(self) -> list[ServedScorer]:
        """In the order they were added."""
        return list(self._scorers.values())

    def get(self, name: str | None) -> ServedScorer:
        """The reward model of this name, or the only one where a request names none. Raises: ApiError 404 or 400."""
        if name is None and len(self._scorers) == 1:
            return next(iter(self._scorers.values()))
        if name is None:
            names = ", ".join(self._scorers) or "none"
            raise ApiError(400, f"Name a reward model in 'model'; this service has: {names}.", param="model")
        if name not in self._scorers:
            shown = name.encode("utf-8", "backslashreplace").decode()
            message = f"The reward model `{shown}` does not exist or you do not have access to it."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._scorers[name]


def is_reward_model(path: str) -> bool:
    """Whether a run or a model folder holds a classifier, which scores answers, rather than a model that writes them.

    Raises: ModelError when its configuration cannot be read.
    """
    folder = artifact_model_path(path)
    check_model_path(folder, key="--model")
    kinds = model_config(folder).architectures or [] if Path(folder).is_dir() else []
    return any(kind.endswith(CLASSIFIER) for kind in kinds)
