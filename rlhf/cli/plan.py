"""`rlhf plan`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands
from rlhf.config.stages import STAGES


def add(commands: Commands) -> None:
    """The command and its flags."""
    plan = commands.add_parser(
        "plan",
        help="memory and time of a run before anything is allocated",
        description="Plans what one rank holds, part by part and role by role, whether it fits, the cheapest change "
        "that makes it fit, steps, hours, and the launch line. Nothing is loaded or downloaded: shapes come from a "
        "folder's config.json, or from tables of Polyglot-ko and KULLM.",
        epilog="example: rlhf plan configs/kullm-12.8b/ppo.yaml train.micro_tokens=2048 --gpus 1 --gpu-memory 40",
    )
    plan.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file of a stage")
    plan.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as the stage takes them")
    plan.add_argument(
        "--stage", choices=tuple(STAGES), help="stage of the file (default: the file's name, if it is one)"
    )
    plan.add_argument("--gpus", type=_positive, default=1, metavar="N", help="GPUs a machine (default: %(default)s)")
    plan.add_argument("--nodes", type=_positive, default=1, metavar="N", help="machines (default: %(default)s)")
    plan.add_argument(
        "--gpu-memory", type=float, default=80.0, metavar="GB", help="memory of one GPU (default: %(default)s)"
    )
    plan.add_argument("--cpu", action="store_true", help="plan CPU processes instead; --gpu-memory is for each of them")
    plan.add_argument(
        "--utilisation", type=float, default=0.35, metavar="SHARE", help="of peak speed (default: %(default)s)"
    )
    plan.add_argument("--json", action="store_true", help="the plan as JSON, in bytes")
    plan.add_argument("--table", action="store_true", help="a Markdown table of all Polyglot-ko sizes alone")
    plan.set_defaults(handler=run_plan)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def run_plan(arguments: argparse.Namespace) -> int:
    """`rlhf plan`; status 1 when the run does not fit."""
    if arguments.table:
        from rlhf.plan.table import table

        sys.stdout.write(table())
        return 0
    import json

    from rlhf.config.stages import stage_of
    from rlhf.errors import ConfigError
    from rlhf.plan.report import GIGABYTE, Machine, make_report

    if not arguments.config:
        raise ConfigError("no configuration is named", where="CONFIG", fix="name a stage's YAML file, or give --table")
    stage = stage_of(arguments.config, arguments.stage)
    memory = arguments.gpu_memory * GIGABYTE
    machine = Machine(arguments.gpus, arguments.nodes, memory, "cpu" if arguments.cpu else "gpu")
    report = make_report(stage, arguments.config, arguments.overrides, machine, utilisation=arguments.utilisation)
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n")
    else:
        from rich.console import Console

        from rlhf.plan.render import show

        show(report, Console())
    return 0 if report.fits else 1
