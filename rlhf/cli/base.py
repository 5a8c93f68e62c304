"""`rlhf base`: base models."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Command, Group
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.demo.options import TinySize

    files = "data files, .txt, or demo:answers_train"
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help=files)
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    add_flags(parser, TinySize, epochs=1.0)
    seed = "seed of the weights and of the order of text (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=17, metavar="N", help=seed)


def run_base_tiny(arguments: argparse.Namespace) -> int:
    """`rlhf base tiny`."""
    from rlhf.demo.options import TinySize
    from rlhf.demo.tiny_base import make_tiny_base

    loss = make_tiny_base(arguments.data, arguments.out, size=fill(TinySize, arguments), seed=arguments.seed)
    sys.stderr.write(f"{arguments.out}: last training loss {loss:.3f}\n")
    return 0


TINY = Command(
    "tiny", "a tiny Polyglot-shaped GPT-NeoX, trained on the spot on any text", run_base_tiny, _flags, files=("data",)
)
GROUP = Group("base", "base models", (TINY,))
