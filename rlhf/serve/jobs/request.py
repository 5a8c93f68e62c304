"""Requests for jobs, in the shape of OpenAI's API and of its API of 2023."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rlhf.serve.errors import ApiError, RequestBody

Auto = Literal["auto"]
Number = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, le=1)]
Suffix = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
STAGE_OF_METHOD = {"supervised": "sft", "reward": "reward", "reinforcement": "ppo", "ppo": "ppo", "dpo": "dpo"}


class Hyperparameters(RequestBody):
    """`auto` takes the value of the operator's configuration."""

    n_epochs: Auto | Number = "auto"
    batch_size: Auto | Count = "auto"
    learning_rate_multiplier: Auto | Number = "auto"
    prompt_loss_weight: Auto | Weight = "auto"


class MethodSettings(RequestBody):
    """The settings under a method's own name."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Grader(BaseModel):
    """The reward of a reinforcement job: a model that a `reward` job trained."""

    model_config = ConfigDict(extra="allow")
    type: str
    model: str = ""


class ReinforcementSettings(MethodSettings):
    """Stage 3."""

    grader: Grader | None = None


class PpoSettings(MethodSettings):
    """Stage 3 with the reward model named directly."""

    reward_model: str = ""


class DpoHyperparameters(Hyperparameters):
    """Those of preference optimisation."""

    beta: Auto | Number = "auto"


class DpoSettings(RequestBody):
    """Preference optimisation on pairs or rankings."""

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(RequestBody):
    """Which stage, and its settings."""

    type: Literal["supervised", "reward", "reinforcement", "ppo", "dpo"]
    supervised: MethodSettings | None = None
    reward: MethodSettings | None = None
    reinforcement: ReinforcementSettings | None = None
    ppo: PpoSettings | None = None
    dpo: DpoSettings | None = None


class JobRequest(RequestBody):
    """POST /v1/fine_tuning/jobs."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Suffix | None = None
    seed: Seed | None = None
    metadata: Metadata | None = None
    integrations: list[Any] | None = None

    def settings(self) -> tuple[str, Hyperparameters, str]:
        """Method, hyperparameters, and for stage 3 the reward model's name; ApiError for what is not offered."""
        if self.integrations:
            raise ApiError(400, "This service has no integrations; poll the events instead.", param="integrations")
        if self.method is None:
            return "supervised", self.hyperparameters or Hyperparameters(), ""
        kind = self.method.type
        given = getattr(self.method, kind) or MethodSettings()
        return kind, self.hyperparameters or given.hyperparameters, _reward_model(given, kind)


def _reward_model(given: MethodSettings | DpoSettings, kind: str) -> str:
    if STAGE_OF_METHOD[kind] != "ppo":
        return ""
    grader = given.grader if isinstance(given, ReinforcementSettings) else None
    if grader is not None and grader.type != "score_model":
        message = f"A grader of type {grader.type!r} is not offered; name a reward model: type score_model."
        raise ApiError(400, message, param="method.reinforcement.grader.type")
    name = grader.model if grader else given.reward_model if isinstance(given, PpoSettings) else ""
    if not name:
        where = "method.ppo.reward_model" if kind == "ppo" else "method.reinforcement.grader.model"
        raise ApiError(400, f"{where} is missing: the id of a model that a `reward` job trained.", param=where)
    return name


class LegacyRequest(RequestBody):
    """POST /v1/fine-tunes, as of 2023; null takes the value of the operator's configuration."""

    training_file: str
    validation_file: str | None = None
    model: str | None = None
    n_epochs: Number | None = None
    batch_size: Count | None = None
    learning_rate_multiplier: Number | None = None
    prompt_loss_weight: Weight | None = None
    suffix: Suffix | None = None

    def modern(self, model: str) -> JobRequest:
        """The same request for the current API."""
        given = self.model_dump(exclude_none=True, exclude={"model"})
        hyperparameters = {name: given.pop(name) for name in Hyperparameters.model_fields if name in given}
        return JobRequest(model=model, hyperparameters=Hyperparameters(**hyperparameters), **given)
