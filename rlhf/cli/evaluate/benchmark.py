"""`rlhf evaluate benchmark`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands

_DESCRIPTION = (
    "KoBEST (boolq, copa, hellaswag, sentineg, wic) by lm-eval, from files on this machine: DIR/boolq.jsonl, or\n"
    "DIR/boolq/test.jsonl (.json, .csv, .parquet), with the keys of skt/kobest_v1. Nothing is fetched. Tasks without\n"
    "a file are left out. Needs: pip install -e '.[eval]' in the checkout"
)
_EXAMPLES = (
    "examples:\n"
    "  rlhf evaluate benchmark --model runs/sft --data data/kobest --out reports/kobest/\n"
    "  rlhf evaluate benchmark --model runs/sft --model runs/ppo --data data/kobest --num-fewshot 5 --out both/"
)


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "benchmark",
        help="KoBEST from local files, by lm-eval",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    command.add_argument("--tasks", choices=("kobest",), default="kobest", help="which tasks (default: %(default)s)")
    command.add_argument(
        "--model", action="append", required=True, metavar="RUN", help="run folder, model folder or hub id; repeatable"
    )
    command.add_argument("--data", required=True, metavar="DIR", help="folder of the tasks' files")
    command.add_argument("--out", required=True, metavar="DIR", help="folder for benchmark.json and benchmark.html")
    command.add_argument(
        "--num-fewshot", type=int, default=0, metavar="N", help="examples before each question (default: %(default)s)"
    )
    command.add_argument("--limit", type=int, metavar="N", help="only the first N questions a task")
    command.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the weights; auto is bfloat16 on a GPU and float32 elsewhere (default: %(default)s)",
    )
    command.add_argument("--batch-size", type=int, default=8, metavar="N", help="(default: %(default)s)")
    command.set_defaults(handler=run_evaluate_benchmark)


def run_evaluate_benchmark(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate benchmark`."""
    from pathlib import Path

    from rlhf.errors import ConfigError
    from rlhf.evaluate.benchmark.command import evaluate_benchmark

    for flag, least in (("num_fewshot", 0), ("limit", 1), ("batch_size", 1)):
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise ConfigError(f"is {value}", where=f"--{flag.replace('_', '-')}", expected=f"at least {least}")
    evaluate_benchmark(
        arguments.model,
        arguments.data,
        Path(arguments.out),
        num_fewshot=arguments.num_fewshot,
        limit=arguments.limit,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
    )
    return 0
