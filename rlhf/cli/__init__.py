"""`rlhf`: everything around the three stages. Heavy packages are imported by the command that needs them.

May import: cli.data, cli.evaluate, demo, and the layers below.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rlhf.cli import (
    base,
    chat,
    compare,
    config,
    data,
    evaluate,
    export,
    keys,
    plan,
    quickstart,
    ready,
    report,
    runs,
    serve,
    stop,
    sweep,
)
from rlhf.errors import RlhfError

COMMANDS = (
    quickstart,
    base,
    config,
    plan,
    ready,
    data,
    export,
    evaluate,
    report,
    sweep,
    runs,
    stop,
    compare,
    keys,
    serve,
    chat,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status. An error of this package is shown without a traceback."""
    arguments = build_parser().parse_args(argv)
    try:
        status = int(arguments.handler(arguments))
        sys.stdout.flush()
        return status
    except RlhfError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    parser = argparse.ArgumentParser(
        prog="rlhf",
        description="Korean-first RLHF. The stages themselves start as `deepspeed scripts/step1_sft.py --config ...`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
