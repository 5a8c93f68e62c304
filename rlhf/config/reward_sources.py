"""What scores an answer in stage 3: the reward model, Python functions, HTTP endpoints."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rlhf.config.sections import DeepSpeedSection, Positive, Section, Share

MODEL_SOURCE = "model"
PLAIN_NAME = re.compile(r"[\w.-]+")


class NamedSource(Section):
    """A source of scores in addition to the reward model."""

    weight: float = Field(1.0, description="the source's scores are multiplied by this before they are added up")
    name: str = Field("", description="name in metrics (reward/NAME); the function's or the host's name if empty")

    @field_validator("name")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if value and not PLAIN_NAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a name for a metric: use only letters, digits, '_', '-' and '.'")
        return value


class RewardFunction(NamedSource):
    """A Python function, called as f(prompts, answers, finished, **options) with lists.

    It returns for each answer a score, or rewards at places: a list of (offset, reward), where the offset is the number
    of characters of the answer up to the end of the step or sentence that earned it.
    """

    path: str = Field(description="package.module:function, such as rlhf.train.reward_functions:polite")
    options: dict[str, Any] = Field(default_factory=dict, description="further keyword arguments of the function")

    @field_validator("path")
    @classmethod
    def _names_a_function(cls, value: str) -> str:
        module, _, function = value.partition(":")
        if not (all(part.isidentifier() for part in module.split(".")) and function.isidentifier()):
            raise ValueError(f"{value!r} is not of the form package.module:function")
        return value

    @property
    def shown_name(self) -> str:
        """The name in metrics."""
        return self.name or self.path.partition(":")[2]


class RewardEndpoint(NamedSource):
    """An HTTP service, such as `rlhf serve --model reward=RUN` at /v1/scores.

    POST {"prompts": [...], "answers": [...], "messages": [...], "finished": [...], "tokens": {...}} gives
    {"scores": [...]}, all JSON; a score is a number or [[offset, reward], ...] as a function's.
    """

    url: str = Field(description="http or https address that takes the POST")
    send: Literal["samples", "texts"] = Field(
        "samples",
        description="what a request holds. samples: prompts, answers, messages (the whole conversation), finished "
        "(whether an answer ended in EOS) and tokens (the ids, for a reward model with the same tokenizer); texts: "
        "prompts (the last user turn) and answers alone",
    )
    api_key_env: str = Field("", description="environment variable with the key that is sent as a bearer token")
    timeout_s: float = Field(30.0, gt=0, description="seconds one request may take")
    retries: int = Field(3, ge=0, description="further attempts after a failed request; each waits twice as long")
    backoff_s: float = Field(1.0, ge=0, description="seconds before the first further attempt")
    batch_size: Positive = Field(64, description="answers per request")

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{value!r} is not an http or https address")
        return value

    @property
    def shown_name(self) -> str:
        """The name in metrics."""
        return self.name or urlsplit(self.url).hostname or "endpoint"


class RewardRole(Section):
    """What scores the answers: a weighted sum of sources."""

    path: str = Field("", description="stage 2 artifact (run folder or its model/); empty when other sources score")
    deepspeed: DeepSpeedSection | None = Field(
        None, description="this role's own ZeRO stage and offload; null: those of deepspeed (ppo.roles=separate)"
    )
    offload: bool = Field(False, description="keep its weights in CPU memory while actor and critic train (GPU)")
    weight: float = Field(1.0, description="the reward model's scores are multiplied by this before they are added up")
    min_accuracy: Share | None = Field(
        0.6,
        description="refuse a reward model whose held-out accuracy has a 95 % upper bound below this; null: accept any",
    )
    functions: list[RewardFunction] = Field(default_factory=list, description="Python functions that score answers")
    endpoints: list[RewardEndpoint] = Field(default_factory=list, description="HTTP services that score answers")

    @property
    def others(self) -> list[RewardFunction | RewardEndpoint]:
        """The sources beside the reward model."""
        return [*self.functions, *self.endpoints]

    @property
    def source_names(self) -> list[str]:
        """Names of all sources in metrics, the reward model's first."""
        return [MODEL_SOURCE] * bool(self.path) + [source.shown_name for source in self.others]
