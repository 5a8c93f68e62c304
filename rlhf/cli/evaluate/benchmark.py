"""`rlhf evaluate benchmark`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlhf.cli.answer_flags import add_model_flag
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.evaluate.benchmark.options import BenchmarkOptions

    parser.add_argument("--tasks", choices=("kobest",), default="kobest", help="which tasks (default: %(default)s)")
    add_model_flag(parser)
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the tasks' files")
    out = "folder for benchmark.json and benchmark.html"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    add_flags(parser, BenchmarkOptions)


def run_evaluate_benchmark(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate benchmark`."""
    from rlhf.evaluate.benchmark.options import BenchmarkOptions

    options = fill(BenchmarkOptions, arguments)
    from rlhf.evaluate.benchmark.command import evaluate_benchmark

    evaluate_benchmark(arguments.model, arguments.data, arguments.out, options)
    return 0


COMMAND = Command(
    "benchmark",
    "KoBEST from local files, by lm-eval",
    run_evaluate_benchmark,
    _flags,
    description="KoBEST (boolq, copa, hellaswag, sentineg, wic) by lm-eval, from files on this machine: "
    "DIR/boolq.jsonl, or DIR/boolq/test.jsonl (.json, .csv, .parquet), with the keys of skt/kobest_v1. Nothing is "
    "fetched. Tasks without a file are skipped. Needs: pip install -e '.[eval]'",
    epilog="examples:\n"
    "  rlhf evaluate benchmark --model runs/sft --data data/kobest --out reports/kobest/\n"
    "  rlhf evaluate benchmark --model runs/sft --model runs/ppo --data data/kobest --num-fewshot 5 --out both/",
)
