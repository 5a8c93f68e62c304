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
GROUP = Group("config", "configuration", (SCHEMA,))
