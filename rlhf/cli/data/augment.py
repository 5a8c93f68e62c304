"""`rlhf data augment`."""

from __future__ import annotations

import argparse

from rlhf.cli.endpoint_flags import add_endpoint_flags, budget_of, open_endpoint
from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "augment",
        help="new instructions with answers, written by a language model from seeds",
        description="Writes Korean instructions with answers from seed instructions: by Self-Instruct, or by making "
        "the seeds harder step by step (Evol-Instruct). Stopped, killed or over its budget, the same command "
        "again goes on where it was and pays only for the rest.",
        epilog="example: rlhf data augment --method self-instruct --seeds prompts.jsonl "
        "--endpoint http://127.0.0.1:8000/v1 --model my-model --num 500 --out new.jsonl; "
        "then: rlhf data check --stage sft new.jsonl",
    )
    command.add_argument(
        "--method",
        choices=("self-instruct", "evol"),
        required=True,
        help="self-instruct: new ones in the likeness of the seeds; evol: the seeds made harder",
    )
    command.add_argument("--seeds", required=True, metavar="FILE", help="instructions, in any format of training data")
    command.add_argument(
        "--endpoint", required=True, metavar="URL", help="chat endpoint, e.g. http://127.0.0.1:8000/v1"
    )
    command.add_argument("--model", required=True, metavar="NAME", help="the endpoint's model")
    command.add_argument("--num", type=int, required=True, metavar="N", help="rows to write")
    command.add_argument("--out", required=True, metavar="FILE", help="file to write (JSONL)")
    command.add_argument("--seed", type=int, default=17, help="seed of every choice (default: %(default)s)")
    _add_writing_flags(command)
    add_endpoint_flags(command)
    command.set_defaults(handler=run_augment)


def _add_writing_flags(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("writing")
    group.add_argument(
        "--similarity",
        type=float,
        default=0.7,
        metavar="ROUGE",
        help="self-instruct: ROUGE-L from which an instruction repeats another (default: %(default)s)",
    )
    group.add_argument(
        "--generations", type=int, default=4, metavar="N", help="evol: times a seed is evolved (default: %(default)s)"
    )
    group.add_argument("--temperature", type=float, default=0.8, help="of what is written (default: %(default)s)")
    group.add_argument("--top-p", type=float, default=0.95, help="of what is written (default: %(default)s)")
    group.add_argument("--max-tokens", type=int, default=1024, metavar="N", help="of one answer (default: %(default)s)")
    group.add_argument(
        "--structured",
        choices=("schema", "object", "prompt"),
        default="schema",
        help="how the service is held to JSON: by a schema, by JSON mode, or by the prompt alone "
        "(default: %(default)s)",
    )


def run_augment(arguments: argparse.Namespace) -> int:
    """`rlhf data augment`."""
    import sys
    from dataclasses import asdict
    from pathlib import Path

    from tqdm import tqdm

    from rlhf.curate.augment.command import augment, read_seeds
    from rlhf.curate.augment.settings import AugmentSettings
    from rlhf.curate.output import Output

    names = ("num", "seed", "temperature", "top_p", "max_tokens", "structured", "similarity", "generations")
    settings = AugmentSettings(**{name: getattr(arguments, name) for name in names})
    budget, seeds = budget_of(arguments), read_seeds(arguments.seeds)
    options = {"method": arguments.method, "endpoint": arguments.endpoint, "model": arguments.model, **asdict(settings)}
    output = Output(Path(arguments.out), command="data augment", inputs=[arguments.seeds], options=options)
    bar = tqdm(desc="augment", total=arguments.num, unit=" rows", disable=None, leave=False)
    with output, open_endpoint(arguments.endpoint, arguments.model, arguments, budget) as endpoint, bar:
        stopped = augment(arguments.method, seeds, endpoint, settings, output, bar.update)
        output.extra = {"usage": asdict(endpoint.usage), "stopped": stopped}
    sys.stderr.write(f"{output.summary()}\n{endpoint.usage.described()}\n")
    if stopped:
        sys.stderr.write(f"{output.kept} of {arguments.num} rows: {stopped}\n")
    return 0
