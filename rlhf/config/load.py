"""The configuration of a stage, or of `rlhf arms`, from YAML files and `key=value` overrides, every problem at once.

    configs/base.yaml  <-  configs/my.yaml (base: base.yaml)  <-  train.lr=1e-5
       lowest                                                       wins

Mappings are merged key by key; lists and single values replace. A `base` is looked up beside the file that
names it; paths of data and models stay as written, relative to the folder the command runs in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rlhf.config.explain import explain
from rlhf.config.layers import COMMAND_LINE, Override, apply_override, parse_override, read_files
from rlhf.config.schema import StageConfig
from rlhf.config.sections import Section
from rlhf.config.shipped import config_file
from rlhf.config.stages import STAGES, stage_named
from rlhf.config.yaml_lines import Document, to_yaml
from rlhf.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=Section)


def load_config(model: type[ConfigT], path: str | Path | None, overrides: Sequence[str] = ()) -> ConfigT:
    """Reads a configuration: `load_config(SftConfig, "configs/demo/sft.yaml", ["train.lr=1e-5"])`.

    Args:
        model: the class of the stage, or ArmsConfig.
        path: a YAML file, or `recipe:demo/sft` for one that is shipped; None starts from the defaults.
        overrides: `key.sub=value` with the value as YAML; they win over files, the last over those before it.

    Raises: ConfigError with every problem found, each with its place, what was expected and the fix.
    """
    problems: list[ConfigError] = []
    parsed = _parse_overrides(overrides, problems)
    in_files: list[ConfigError] = []
    document = Document() if path is None else read_files(config_file(path, COMMAND_LINE), in_files)
    misplaced = _apply(document, parsed)
    problems = in_files + problems + (misplaced if document.complete else [])
    try:
        config = model.model_validate(document.values, strict=True)
    except ValidationError as error:
        problems += explain(model, document, error, complete=not problems)
        raise ConfigError.collect(problems) from error
    if problems:
        raise ConfigError.collect(problems)
    return config


def _parse_overrides(overrides: Sequence[str], problems: list[ConfigError]) -> list[Override]:
    parsed = []
    for argument in overrides:
        try:
            parsed.append(parse_override(argument))
        except ConfigError as error:
            problems.append(error)
    return parsed


def _apply(document: Document, overrides: list[Override]) -> list[ConfigError]:
    problems = []
    for override in overrides:
        try:
            apply_override(document, override)
        except ConfigError as error:
            problems.append(error)
    return problems


def dump_config(config: StageConfig) -> str:
    """The configuration as YAML, keys as declared, defaults included; `load_config` reads it back equal."""
    stage = next((name for name, stage in STAGES.items() if stage.config is type(config)), type(config).__name__)
    return f"# stage: {stage} (every key of the run, defaults included)\n{to_yaml(config.model_dump())}"


def dump_values(config: Section) -> str:
    """Any configuration as YAML, defaults included; `load_config` reads it back equal."""
    return to_yaml(config.model_dump(mode="json"))


def config_schema(stage: str) -> dict[str, Any]:
    """JSON Schema of a stage's YAML file, with descriptions and defaults, for editors."""
    schema = stage_named(stage).config.model_json_schema()
    name = {"type": "string"}
    schema["properties"]["base"] = {
        "anyOf": [name, {"type": "array", "items": name}],
        "description": "YAML files this one is laid over, relative to it; the later wins",
    }
    return schema


def secret(variable: str) -> str:
    """What an environment variable holds, such as the key of a service; "" where it is not set."""
    return os.environ.get(variable, "").strip()
