"""`rlhf export`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    export = commands.add_parser(
        "export",
        help="a finished run as a folder for others, proved by loading it again",
        description="Writes a finished run's model into a folder that transformers loads, with tokenizer, manifest and "
        "model card, after a fresh process has loaded it and computed the same numbers.",
        epilog="example: rlhf export --run runs/kullm/ppo --out release/kullm-ppo --dtype bfloat16",
    )
    export.add_argument("--run", required=True, metavar="RUN", help="run folder of stage 1, 2 or 3; only read")
    export.add_argument("--out", required=True, metavar="DIR", help="folder to write; absent or empty")
    export.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="type of the weights (default: that of RUN/model)"
    )
    export.add_argument(
        "--part",
        choices=("merged", "adapter"),
        default="merged",
        help="the whole model, or a LoRA run's adapter as it was trained (default: %(default)s)",
    )
    export.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="of one safetensors file (default: %(default)s)"
    )
    export.set_defaults(handler=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """`rlhf export`."""
    from pathlib import Path

    from rlhf.artifacts.publish import publish

    published = publish(
        Path(arguments.run),
        Path(arguments.out),
        dtype=arguments.dtype,
        part=arguments.part,
        max_shard_size=arguments.max_shard_size,
    )
    sys.stdout.write(published.summary() + "\n")
    return 0
