"""The configuration of a job: its request's settings over the operator's YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.load import load_config
from rlhf.config.schema import PpoConfig, SftConfig, StageConfig
from rlhf.config.stages import STAGES, stage_of_file
from rlhf.errors import ConfigError
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.request import Hyperparameters


@dataclass(frozen=True, slots=True)
class JobInputs:
    """The paths that a job reads and writes; `reward` is for stage 3 only."""

    run: Path
    base: Path
    training: Path
    validation: Path | None
    reward: Path | None


def read_job_configs(given: Sequence[str]) -> dict[str, Path | None]:
    """The operator's configurations by stage: files named after a stage, `STAGE=FILE`, or a folder of such files.

    None stands for a stage's own defaults; without any word every stage has them.

    Raises: ConfigError for a word that names no stage, or a file that cannot be used.
    """
    if not given:
        return dict.fromkeys(STAGES)
    found: dict[str, Path] = {}
    for word in given:
        stage, sign, name = word.partition("=")
        if sign and stage in STAGES:
            found[stage] = Path(name)
        elif Path(word).is_dir():
            found |= {stage: Path(word, f"{stage}.yaml") for stage in STAGES if Path(word, f"{stage}.yaml").is_file()}
        elif (named := stage_of_file(word)) is not None:
            found[named] = Path(word)
        else:
            fix = f"name it {', '.join(f'{stage}.yaml' for stage in STAGES)}, or write sft={word}"
            raise ConfigError(f"{word} is not named after a stage", where="--job-config", fix=fix)
    if not found:
        raise ConfigError(
            "no configuration for jobs", where="--job-config", fix="name a recipe, such as configs/kullm-5.8b"
        )
    for stage, path in found.items():
        load_config(STAGES[stage].config, path)
    return {stage: path.resolve() for stage, path in found.items()}


def job_config(
    stage: str, operator: Path | None, inputs: JobInputs, wanted: Hyperparameters, *, seed: int
) -> tuple[StageConfig, dict[str, Any]]:
    """The configuration of one job, and its hyperparameters with every `auto` resolved.

    Raises: ApiError 400 when the stage would refuse it.
    """
    before = load_config(STAGES[stage].config, operator)
    values = _inputs(stage, before, inputs) | _numbers(before, wanted) | {"run.seed": seed}
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    try:
        config = load_config(STAGES[stage].config, operator, overrides)
    except ConfigError as error:
        raise ApiError(400, f"The job's settings cannot be used. {error}", param="hyperparameters") from None
    return config, _resolved(config, wanted)


def _inputs(stage: str, before: StageConfig, inputs: JobInputs) -> dict[str, Any]:
    values: dict[str, Any] = {"run.dir": str(inputs.run), "data.train": str(inputs.training), "data.eval": []}
    if inputs.validation is not None:
        values["data.eval"] = str(inputs.validation)
    elif getattr(before.eval, "patience", None) is not None:
        values["eval.patience"] = None  # there is no held-out data for early stopping
    if stage == "ppo":
        return values | {"actor.path": str(inputs.base), "reward.path": str(inputs.reward)}
    return values | {"model.path": str(inputs.base)}


def _numbers(before: StageConfig, wanted: Hyperparameters) -> dict[str, Any]:
    """The keys that the given hyperparameters set."""
    values: dict[str, Any] = {}
    if wanted.n_epochs != "auto":
        values["train.epochs"] = float(wanted.n_epochs)
    if wanted.batch_size != "auto":
        values["train.batch_size"] = wanted.batch_size
    if wanted.learning_rate_multiplier != "auto":
        values["train.lr"] = before.train.lr * wanted.learning_rate_multiplier
        if isinstance(before, PpoConfig):
            values["critic.lr"] = before.critic.lr * wanted.learning_rate_multiplier
    if wanted.prompt_loss_weight != "auto":
        if not isinstance(before, SftConfig):
            raise ApiError(400, "prompt_loss_weight is for supervised jobs.", param="prompt_loss_weight")
        values["train.prompt_loss_weight"] = wanted.prompt_loss_weight
    return values


def _resolved(config: StageConfig, wanted: Hyperparameters) -> dict[str, Any]:
    epochs, multiplier = config.train.epochs, wanted.learning_rate_multiplier
    resolved: dict[str, Any] = {
        "n_epochs": int(epochs) if epochs == int(epochs) else epochs,
        "batch_size": config.train.batch_size,
        "learning_rate_multiplier": 1.0 if multiplier == "auto" else multiplier,
    }
    if isinstance(config, SftConfig):
        resolved["prompt_loss_weight"] = config.train.prompt_loss_weight
    return resolved


def read_bases(given: Sequence[str]) -> Mapping[str, Path]:
    """`NAME=PATH` words: the models that clients may fine-tune.

    Raises: ConfigError for a word of another form, a name given twice, or a folder that holds no model.
    """
    found: dict[str, Path] = {}
    for word in given:
        name, sign, path = word.partition("=")
        if not sign or not name or name in found:
            problem = f"{name} is given twice" if name in found else f"{word} names no base"
            raise ConfigError(problem, where="--base", expected="NAME=PATH, each name once")
        folder = Path(path).resolve()
        if not any((each / "config.json").is_file() for each in (folder, folder / "model")):
            raise ConfigError(f"{path} holds no model", where="--base", expected="a model's folder, or a finished run")
        found[name] = folder
    return found
