"""`rlhf base`: base models."""

from __future__ import annotations

import argparse
import sys

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    base = commands.add_parser("base", help="base models")
    kinds = base.add_subparsers(required=True, metavar="KIND")
    tiny = kinds.add_parser("tiny", help="a tiny Polyglot-shaped GPT-NeoX, trained on the spot on any text")
    tiny.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="data files, .txt, or demo:rankings_train"
    )
    tiny.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    tiny.add_argument("--hidden", type=int, default=192, help="width (default: %(default)s)")
    tiny.add_argument("--layers", type=int, default=4, help="depth (default: %(default)s)")
    tiny.add_argument("--heads", type=int, default=4, help="attention heads (default: %(default)s)")
    tiny.add_argument("--vocabulary", type=int, default=0, help="tokens; 0 chooses by the amount of text")
    tiny.add_argument("--epochs", type=float, default=1.0, help="passes over the text (default: %(default)s)")
    tiny.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    tiny.add_argument("--seed", type=int, default=17)
    tiny.set_defaults(handler=run_base_tiny)


def run_base_tiny(arguments: argparse.Namespace) -> int:
    """`rlhf base tiny`."""
    from rlhf.demo.tiny_base import TinySize, make_tiny_base

    size = TinySize(
        hidden=arguments.hidden,
        layers=arguments.layers,
        heads=arguments.heads,
        vocabulary=arguments.vocabulary,
        epochs=arguments.epochs,
        lr=arguments.lr,
    )
    loss = make_tiny_base(arguments.data, arguments.out, size=size, seed=arguments.seed)
    sys.stderr.write(f"{arguments.out}: last training loss {loss:.3f}\n")
    return 0
