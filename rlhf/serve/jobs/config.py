"""The operator's settings for jobs, and the configuration of one: its request's settings over the operator's file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, SftConfig, StageConfig
from rlhf.config.stages import STAGES, stage_of_file
from rlhf.errors import ConfigError
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.launch import Launcher
from rlhf.serve.jobs.request import DpoHyperparameters, Hyperparameters


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The operator's settings: `rlhf serve --jobs-dir ... --job-config ... --base NAME=PATH`.

    configs: the configuration that a stage's jobs start from; None for the stage's defaults.
    bases: the models that clients may fine-tune, by name.
    max_file_bytes: limit on one upload.
    """

    folder: Path
    configs: Mapping[str, Path | None]
    bases: Mapping[str, Path]
    launcher: Launcher
    parallel: int = 1
    max_file_bytes: int = 512 << 20


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
    stage: str, operator: Path | None, paths: Mapping[str, Any], wanted: Hyperparameters, *, seed: int
) -> tuple[StageConfig, dict[str, Any]]:
    """The configuration of one job, and its hyperparameters with every `auto` resolved.

    Args:
        paths: what the job reads and writes, by dotted key.

    Raises: ApiError 400 when the stage would refuse it.
    """
    before = load_config(STAGES[stage].config, operator)
    values = dict(paths) | _numbers(before, wanted) | {"run.seed": seed}
    if not values["data.eval"] and getattr(before.eval, "patience", None) is not None:
        values["eval.patience"] = None  # there is no held-out data for early stopping
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    try:
        config = load_config(STAGES[stage].config, operator, overrides)
    except ConfigError as error:
        raise ApiError(400, f"The job's settings cannot be used. {error}", param="hyperparameters") from None
    multiplier = wanted.learning_rate_multiplier
    resolved: dict[str, Any] = {
        "n_epochs": int(config.train.epochs) if config.train.epochs.is_integer() else config.train.epochs,
        "batch_size": config.train.batch_size,
        "learning_rate_multiplier": 1.0 if multiplier == "auto" else multiplier,
    }
    if isinstance(config, SftConfig):
        resolved["prompt_loss_weight"] = config.train.prompt_loss_weight
    if isinstance(config, DpoConfig):
        resolved["beta"] = config.dpo.strength
    return config, resolved


def _numbers(before: StageConfig, wanted: Hyperparameters) -> dict[str, Any]:
    """The keys that the given hyperparameters set."""
    if wanted.prompt_loss_weight != "auto" and not isinstance(before, SftConfig):
        raise ApiError(400, "prompt_loss_weight is for supervised jobs.", param="prompt_loss_weight")
    values: dict[str, Any] = {
        "train.epochs": wanted.n_epochs,
        "train.batch_size": wanted.batch_size,
        "train.prompt_loss_weight": wanted.prompt_loss_weight,
    }
    if isinstance(wanted, DpoHyperparameters):
        values["dpo.beta"] = wanted.beta
    if wanted.learning_rate_multiplier != "auto":
        values["train.lr"] = before.train.lr * wanted.learning_rate_multiplier
        if isinstance(before, PpoConfig):
            values["critic.lr"] = before.critic.lr * wanted.learning_rate_multiplier
    return {key: value for key, value in values.items() if value != "auto"}


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
