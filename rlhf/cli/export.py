"""`rlhf export`."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    export = commands.add_parser(
        "export",
        help="a run's model as a folder for others, proved by loading it again",
        description="Writes the model of a finished run, or of a checkpoint, into a folder that transformers loads, "
        "with tokenizer, manifest and model card, after a fresh process has loaded it and computed the same numbers. "
        "A checkpoint needs neither a GPU nor the ranks that saved it, but the base that the run started from.",
        epilog="examples: rlhf export --run runs/kullm/ppo --out release/kullm-ppo --dtype bfloat16\n"
        "          rlhf export --run runs/kullm/sft --checkpoint latest --out release/kullm-sft",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("--run", required=True, metavar="RUN", help="run folder of stage 1, 2 or 3; only read")
    export.add_argument("--out", required=True, metavar="DIR", help="folder to write; absent or empty")
    export.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="step-000100, latest or best: that checkpoint instead of the finished model; of stage 3, the actor",
    )
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
    export.add_argument(
        "--format",
        choices=("huggingface", "gguf"),
        default="huggingface",
        help="gguf is not written here: it says how to make one from the folder (default: %(default)s)",
    )
    export.set_defaults(handler=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """`rlhf export`."""
    from pathlib import Path

    from rlhf.artifacts.publish import publish, refuse_format

    refuse_format(arguments.format, arguments.out)
    run, out = Path(arguments.run), Path(arguments.out)
    options = {"dtype": arguments.dtype, "part": arguments.part, "max_shard_size": arguments.max_shard_size}
    if arguments.checkpoint is None:
        published = publish(run, out, **options)
    else:
        from rlhf.train.checkpoint_export import publish_checkpoint

        published = publish_checkpoint(run, out, arguments.checkpoint, **options)
    sys.stdout.write(published.summary() + "\n")
    return 0
