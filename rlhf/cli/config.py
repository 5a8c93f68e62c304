"""`rlhf config`: configuration."""

from __future__ import annotations

import argparse
import json
import sys

from rlhf.cli.parser import Commands
from rlhf.config.stages import STAGES


def add(commands: Commands) -> None:
    """The command and its flags."""
    config = commands.add_parser("config", help="configuration")
    kinds = config.add_subparsers(required=True, metavar="KIND")
    schema = kinds.add_parser("schema", help="JSON Schema of a stage's YAML, for editors")
    schema.add_argument("--stage", required=True, choices=tuple(STAGES))
    schema.set_defaults(handler=run_config_schema)


def run_config_schema(arguments: argparse.Namespace) -> int:
    """`rlhf config schema`."""
    from rlhf.config.load import config_schema

    sys.stdout.write(json.dumps(config_schema(arguments.stage), ensure_ascii=False, indent=2) + "\n")
    return 0
