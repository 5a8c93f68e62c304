"""`rlhf export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.artifacts.publish_options import ExportOptions

    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="run folder of any stage; only read")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; absent or empty")
    name = "step-000100, latest or best: that checkpoint instead of the finished model; of stage 3, the actor"
    parser.add_argument("--checkpoint", metavar="NAME", help=name)
    add_flags(parser, ExportOptions)
    gguf = "gguf is not written here: it says how to make one from the folder (default: %(default)s)"
    parser.add_argument("--format", choices=("huggingface", "gguf"), default="huggingface", help=gguf)


def run_export(arguments: argparse.Namespace) -> int:
    """`rlhf export`."""
    from rlhf.artifacts.publish import publish, refuse_format
    from rlhf.artifacts.publish_options import ExportOptions

    refuse_format(arguments.format, arguments.out)
    options = fill(ExportOptions, arguments)
    if arguments.checkpoint is None:
        published = publish(arguments.run, arguments.out, options)
    else:
        from rlhf.train.checkpoint_export import publish_checkpoint

        published = publish_checkpoint(arguments.run, arguments.out, arguments.checkpoint, options)
    sys.stdout.write(published.summary() + "\n")
    return 0


COMMAND = Command(
    "export",
    "export for release: convert dtype, merge, verify, model card",
    run_export,
    _flags,
    description="Writes the model of a finished run, or of a checkpoint, into a folder that transformers loads, with "
    "tokenizer, manifest and model card, after a fresh process has loaded it and computed the same numbers. A "
    "checkpoint needs neither a GPU nor the ranks that saved it, but needs the base model that the run started from.",
    epilog="examples:\n"
    "  rlhf export --run runs/kullm/ppo --out release/kullm-ppo --dtype bfloat16\n"
    "  rlhf export --run runs/kullm/sft --checkpoint latest --out release/kullm-sft",
)
