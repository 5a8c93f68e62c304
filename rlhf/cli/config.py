"""`rlhf config`: configuration."""

from __future__ import annotations

import argparse
import json
import sys

from rlhf.cli.parser import Command, Group
from rlhf.config.stages import STAGES


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", required=True, choices=tuple(STAGES), help="the stage whose YAML is described")


def run_config_schema(arguments: argparse.Namespace) -> int:
    """`rlhf config schema`."""
    from rlhf.config.load import config_schema

    sys.stdout.write(json.dumps(config_schema(arguments.stage), ensure_ascii=False, indent=2) + "\n")
    return 0


SCHEMA = Command("schema", "JSON Schema of a stage's YAML, for editors", run_config_schema, _flags)


def _no_flags(parser: argparse.ArgumentParser) -> None:
    """`rlhf config recipes` has none."""


def run_config_recipes(arguments: argparse.Namespace) -> int:
    """`rlhf config recipes`."""
    from rlhf.config.shipped import PREFIX, config_file, recipe_names

    for name in recipe_names():
        sys.stdout.write(f"{PREFIX}{name}  {config_file(PREFIX + name)}\n")
    return 0


RECIPES = Command("recipes", "the shipped configurations: name and file", run_config_recipes, _no_flags)
GROUP = Group("config", "configuration", (SCHEMA, RECIPES))
