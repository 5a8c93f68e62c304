"""`rlhf`: everything around the three stages. Heavy packages are imported by the command that needs them.

May import: cli.data, cli.evaluate, demo, and the layers below.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rlhf.cli import (
    arms,
    base,
    chat,
    compare,
    config,
    data,
    doctor,
    evaluate,
    export,
    keys,
    plan,
    push,
    quickstart,
    ready,
    report,
    rollout_server,
    runs,
    score,
    serve,
    stop,
    sweep,
    train,
)
from rlhf.cli.parser import Command, CommandParser, Group
from rlhf.errors import RlhfError

COMMANDS: tuple[Command | Group, ...] = (
    quickstart.COMMAND,
    base.GROUP,
    config.GROUP,
    plan.COMMAND,
    doctor.COMMAND,
    train.COMMAND,
    ready.COMMAND,
    data.GROUP,
    export.COMMAND,
    push.COMMAND,
    evaluate.GROUP,
    score.COMMAND,
    report.COMMAND,
    sweep.COMMAND,
    arms.COMMAND,
    runs.COMMAND,
    stop.COMMAND,
    compare.COMMAND,
    keys.GROUP,
    serve.COMMAND,
    chat.COMMAND,
    rollout_server.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status. An error of this package is shown without a traceback.

    Under `deepspeed --module rlhf`, `--local_rank=N` comes before the command.
    """
    words = [word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("--local_rank=")]
    try:
        arguments = build_parser().parse_args(words)
        status = int(arguments.handler(arguments))
        sys.stdout.flush()
        return status
    except RlhfError as error:
        notes = getattr(error, "__notes__", ())
        sys.stderr.write("\n".join([f"{type(error).__name__}: {error}", *notes, ""]))
        return 1
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def build_parser() -> CommandParser:
    """All commands; the flags of each are added when it is chosen."""
    parser = CommandParser(
        prog="rlhf",
        description="Korean-first RLHF. A stage starts by `rlhf train sft --config ...`, or as "
        "`deepspeed scripts/step1_sft.py --config ...`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser
