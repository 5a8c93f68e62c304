"""`rlhf sweep`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands
from rlhf.config.stages import STAGES


def add(commands: Commands) -> None:
    """The command and its flags."""
    sweep = commands.add_parser(
        "sweep",
        help="one stage over a grid of settings, here or on Slurm",
        description="Starts a run for every combination of the grid, each in a folder named by what it changes. All "
        "are checked before the first starts; given again, the command goes on and keeps what is finished.",
        epilog="example: rlhf sweep configs/demo/sft.yaml train.epochs=1 --grid train.lr=1e-4,3e-4 --local --out "
        "runs/sweep",
    )
    sweep.add_argument("config", metavar="CONFIG", help="YAML file of a stage")
    sweep.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of every run")
    sweep.add_argument(
        "--grid",
        action="append",
        required=True,
        metavar="key=V,V",
        help="a key and its values; repeat it for more keys: all combinations are run",
    )
    sweep.add_argument("--out", required=True, metavar="DIR", help="folder of the run folders")
    where = sweep.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="one after another, by the deepspeed launcher")
    where.add_argument("--slurm", action="store_true", help="a job each, by scripts/slurm/train.sbatch")
    sweep.add_argument("--ranks", type=int, metavar="N", help="processes of a run with --local (default: every GPU)")
    sweep.add_argument(
        "--sbatch", default="", metavar="OPTIONS", help='for --slurm, such as "--nodes=2 --gpus-per-node=8"'
    )
    sweep.add_argument(
        "--stage", choices=tuple(STAGES), help="stage of the file (default: the file's name, if it is one)"
    )
    sweep.set_defaults(handler=run_sweep)


def run_sweep(arguments: argparse.Namespace) -> int:
    """`rlhf sweep`; status 1 when a local run did not finish."""
    import shlex
    from pathlib import Path

    from rlhf.config.stages import stage_of
    from rlhf.runs.listing import best_first, runs_table
    from rlhf.runs.sweep import plan_sweep

    stage = stage_of(arguments.config, arguments.stage)
    sweep = plan_sweep(stage, arguments.config, arguments.grid, arguments.overrides, Path(arguments.out))
    if arguments.slurm:
        sweep.submit(shlex.split(arguments.sbatch))
    else:
        sweep.run_local(ranks=arguments.ranks)
    runs = sweep.summaries()
    sys.stdout.write("\n" + runs_table(best_first(runs)))
    return 0 if arguments.slurm or all(run.status == "finished" for run in runs) else 1
