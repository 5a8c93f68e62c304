"""`rlhf`: everything around the three stages. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from rlhf.errors import RlhfError

Handler = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status. An error of this package is shown without a traceback."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.handler(arguments))
    except RlhfError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1


def build_parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    parser = argparse.ArgumentParser(
        prog="rlhf",
        description="Korean-first RLHF. The stages themselves start as `deepspeed scripts/step1_sft.py --config ...`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _quickstart(commands)
    _base(commands)
    _config(commands)
    return parser


def _quickstart(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "quickstart", help="base, SFT, reward model and PPO on a tiny model, measured before and after"
    )
    command.add_argument("--out", default="runs/q", metavar="RUN", help="folder of the runs (default: %(default)s)")
    command.add_argument(
        "--data",
        metavar="DIR",
        help="your own DIR/{sft,preference,prompts}_{train,dev}.jsonl instead of the embedded data",
    )
    command.add_argument("--seed", type=int, default=17, help="seed of every stage (default: %(default)s)")
    command.set_defaults(handler=run_quickstart)


def _base(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="configuration")
    kinds = config.add_subparsers(required=True, metavar="KIND")
    schema = kinds.add_parser("schema", help="JSON Schema of a stage's YAML, for editors")
    schema.add_argument("--stage", required=True, choices=("sft", "reward", "ppo"))
    schema.set_defaults(handler=run_config_schema)


def run_quickstart(arguments: argparse.Namespace) -> int:
    """`rlhf quickstart`."""
    from pathlib import Path

    from rlhf.demo.quickstart import Quickstart

    data = Path(arguments.data) if arguments.data else None
    Quickstart(Path(arguments.out), data, arguments.seed).run()
    return 0


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


def run_config_schema(arguments: argparse.Namespace) -> int:
    """`rlhf config schema`."""
    from rlhf.config.load import config_schema

    sys.stdout.write(json.dumps(config_schema(arguments.stage), ensure_ascii=False, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
