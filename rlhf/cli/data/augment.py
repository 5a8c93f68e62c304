"""`rlhf data augment`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.endpoint_flags import ENDPOINT, add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.augment.settings import AugmentSettings

    method = "self-instruct: new ones that resemble the seeds; evol: the seeds made harder"
    parser.add_argument("--method", choices=("self-instruct", "evol"), required=True, help=method)
    seeds = "instructions, in any format of training data"
    parser.add_argument("--seeds", required=True, metavar="FILE", help=seeds)
    parser.add_argument("--endpoint", required=True, metavar="URL", help=ENDPOINT)
    parser.add_argument("--model", required=True, metavar="NAME", help="the endpoint's model")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write (JSONL)")
    add_flags(parser, AugmentSettings, only=("num", "seed"))
    add_flags(parser.add_argument_group("writing"), AugmentSettings, skip=("num", "seed"))
    add_endpoint_flags(parser)


def run_augment(arguments: argparse.Namespace) -> int:
    """`rlhf data augment`."""
    from dataclasses import asdict

    from tqdm import tqdm

    from rlhf.curate.augment.command import augment, read_seeds
    from rlhf.curate.augment.settings import AugmentSettings
    from rlhf.curate.output import Output

    settings = fill(AugmentSettings, arguments)
    budget, seeds = budget_of(arguments), read_seeds(arguments.seeds)
    options = {"method": arguments.method, "endpoint": arguments.endpoint, "model": arguments.model, **asdict(settings)}
    output = Output(arguments.out, command="data augment", inputs=[arguments.seeds], options=options)
    bar = tqdm(desc="augment", total=settings.num, unit=" rows", disable=None, leave=False)
    with output, open_endpoint(arguments.endpoint, arguments.model, arguments, budget) as endpoint, bar:
        stopped = augment(arguments.method, seeds, endpoint, settings, output, bar.update)
        output.extra = {"usage": asdict(endpoint.usage), "stopped": stopped}
    sys.stderr.write(f"{output.summary()}\n{endpoint.usage.described()}\n")
    if stopped:
        sys.stderr.write(f"{output.kept} of {settings.num} rows: {stopped}\n")
    return 0


COMMAND = Command(
    "augment",
    "new instructions with answers, written by a language model from seeds",
    run_augment,
    _flags,
    description="Writes Korean instructions with answers from seed instructions: by Self-Instruct, or by making the "
    "seeds harder step by step (Evol-Instruct). Stopped, killed or over its budget, the same command again continues "
    "where it was and pays only for the rest.",
    epilog="example:\n"
    "  rlhf data augment --method self-instruct --seeds prompts.jsonl --endpoint http://127.0.0.1:8000/v1 \\\n"
    "      --model my-model --num 500 --out new.jsonl\n"
    "then: rlhf data check --stage sft new.jsonl",
)
