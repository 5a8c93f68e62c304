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
    _export(commands)
    _evaluate(commands)
    _report(commands)
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
    command.add_argument(
        "--lora",
        action="store_true",
        help="train adapters on one base, and let the roles of PPO share it (ppo.roles=shared)",
    )
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


def _export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser("evaluate", help="what a model is worth, in numbers with their range")
    kinds = evaluate.add_subparsers(required=True, metavar="KIND")
    reward = kinds.add_parser("reward", help="a reward model's report card, as JSON and as a page")
    reward.add_argument("--model", required=True, metavar="RUN", help="run folder of stage 2, or its model/")
    reward.add_argument(
        "--data", nargs="+", required=True, metavar="FILE", help="files of rankings or pairs, or demo:rankings_dev"
    )
    reward.add_argument("--out", required=True, metavar="DIR", help="folder for report_card.json and .html")
    reward.add_argument("--limit", type=int, metavar="N", help="use only the first N rows of each file")
    reward.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )
    reward.set_defaults(handler=run_evaluate_reward)


def _report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser(
        "report",
        help="a run as one page: verdict, curves, tripwires, answers",
        epilog="example: rlhf report runs/demo-ppo",
    )
    report.add_argument("run", metavar="RUN", help="run folder of any stage, finished or not")
    report.add_argument("--out", metavar="FILE", help="page to write (default: RUN/report.html)")
    report.set_defaults(handler=run_report)


def run_quickstart(arguments: argparse.Namespace) -> int:
    """`rlhf quickstart`."""
    from pathlib import Path

    from rlhf.demo.quickstart import Quickstart

    data = Path(arguments.data) if arguments.data else None
    Quickstart(Path(arguments.out), data, arguments.seed, arguments.lora).run()
    return 0


def run_evaluate_reward(arguments: argparse.Namespace) -> int:
    """`rlhf evaluate reward`."""
    from rlhf.evaluate.reward_report import evaluate_reward

    evaluate_reward(
        arguments.model, arguments.data, arguments.out, limit=arguments.limit, on_bad_row=arguments.on_bad_row
    )
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """`rlhf report`."""
    from rlhf.evaluate.run_report import write_report

    write_report(arguments.run, arguments.out)
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


def run_config_schema(arguments: argparse.Namespace) -> int:
    """`rlhf config schema`."""
    from rlhf.config.load import config_schema

    sys.stdout.write(json.dumps(config_schema(arguments.stage), ensure_ascii=False, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
