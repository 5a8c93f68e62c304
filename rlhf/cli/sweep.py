"""`rlhf sweep`."""

from __future__ import annotations

import argparse
import shlex
import sys

from rlhf.cli.parser import Command
from rlhf.cli.plan import STAGE
from rlhf.config.stages import STAGES, stage_of


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file of a stage")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of every run")
    grid = "a key and its values; repeat it for more keys: all combinations are run"
    parser.add_argument("--grid", action="append", required=True, metavar="key=V,V", help=grid)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run folders")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="one after another, by the deepspeed launcher")
    where.add_argument("--slurm", action="store_true", help="one job per run, by scripts/slurm/train.sbatch")
    parser.add_argument("--ranks", type=int, metavar="N", help="processes per run with --local (default: every GPU)")
    options = 'options of sbatch with --slurm, such as "--nodes=2 --gpus-per-node=8"'
    parser.add_argument("--sbatch", type=shlex.split, default=[], metavar="OPTIONS", help=options)
    parser.add_argument("--stage", choices=tuple(STAGES), help=STAGE)


def run_sweep(arguments: argparse.Namespace) -> int:
    """`rlhf sweep`; status 1 when a local run did not finish."""
    from pathlib import Path

    from rlhf.runs.listing import best_first, runs_table
    from rlhf.runs.sweep import plan_sweep

    stage = stage_of(arguments.config, arguments.stage)
    sweep = plan_sweep(stage, arguments.config, arguments.grid, arguments.overrides, Path(arguments.out))
    if arguments.slurm:
        sweep.submit(arguments.sbatch)
    else:
        sweep.run_local(ranks=arguments.ranks)
    runs = sweep.runs()
    sys.stdout.write("\n" + runs_table(best_first(runs)))
    return 0 if arguments.slurm or all(run.status == "finished" for run in runs) else 1


COMMAND = Command(
    "sweep",
    "one stage over a grid of settings, here or on Slurm",
    run_sweep,
    _flags,
    description="Starts a run for every combination of the grid, each in a folder named by what it changes. All are "
    "checked before the first starts; given again, the command continues and keeps what is finished.",
    epilog="example:\n"
    "  rlhf sweep configs/demo/sft.yaml train.epochs=1 --grid train.lr=1e-4,3e-4 --local --out runs/sweep",
)
