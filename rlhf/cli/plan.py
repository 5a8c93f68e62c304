"""`rlhf plan`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill
from rlhf.config.stages import STAGES, stage_of

STAGE = "stage of the file (default: the file's name, if it is that of a stage)"


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.plan.machine import UTILISATION, Machine

    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file of a stage")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as the stage takes them")
    parser.add_argument("--stage", choices=tuple(STAGES), help=STAGE)
    add_flags(parser, Machine)
    parser.add_argument("--cpu", action="store_true", help="plan CPU processes instead; --gpu-memory is per process")
    peak = "share of peak speed (default: %(default)s)"
    parser.add_argument("--utilisation", type=float, default=UTILISATION, metavar="SHARE", help=peak)
    parser.add_argument("--json", action="store_true", help="the plan as JSON, in bytes")
    parser.add_argument("--table", action="store_true", help="only a Markdown table of all Polyglot-ko sizes")


def run_plan(arguments: argparse.Namespace) -> int:
    """`rlhf plan`; status 1 when the run does not fit."""
    if arguments.table:
        from rlhf.plan.table import table

        sys.stdout.write(table())
        return 0
    import json

    from rlhf.errors import ConfigError
    from rlhf.plan.machine import Machine
    from rlhf.plan.report import make_report

    if not arguments.config:
        raise ConfigError("no configuration is named", where="CONFIG", fix="name a stage's YAML file, or give --table")
    stage = stage_of(arguments.config, arguments.stage)
    machine = fill(Machine, arguments, device="cpu" if arguments.cpu else "gpu")
    report = make_report(stage, arguments.config, arguments.overrides, machine, utilisation=arguments.utilisation)
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n")
    else:
        from rich.console import Console

        from rlhf.plan.render import show

        show(report, Console())
    return 0 if report.fits else 1


COMMAND = Command(
    "plan",
    "memory and time of a run before anything is allocated",
    run_plan,
    _flags,
    description="Plans what one rank holds, part by part and role by role; whether it fits and, if not, the smallest "
    "change that makes it fit; steps, hours, and the launch line. Nothing is loaded or downloaded: shapes come from a "
    "folder's config.json, or from tables of Polyglot-ko and KULLM.",
    epilog="example: rlhf plan configs/kullm-12.8b/ppo.yaml train.micro_tokens=2048 --gpus 1 --gpu-memory 40",
)
