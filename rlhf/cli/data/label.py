"""`rlhf data label`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "label",
        help="a page in Korean and English where people rank answers",
        description="People rank 2 to 9 answers a row in the browser, without seeing whose they are. "
        "Every click is kept in OUT.sqlite at once: stop and start as you like.",
        epilog="examples: rlhf data label --in sampled.jsonl --out labels.jsonl; "
        "for a team: ... --annotators 지수,민호 --host 0.0.0.0 --overlap 0.2; "
        "then: deepspeed scripts/step2_reward.py ... data.train=labels.jsonl",
    )
    command.add_argument(
        "--in", dest="rows", required=True, metavar="FILE", help="what `rlhf data sample` wrote, or any ranking file"
    )
    command.add_argument("--out", required=True, metavar="FILE", help="ranking file to write (JSONL)")
    command.add_argument("--port", type=int, default=7861, help="port; 0 takes a free one (default: %(default)s)")
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but this machine's own needs --annotators (default: %(default)s)",
    )
    command.add_argument(
        "--annotators", metavar="NAMES", help="a link a person, e.g. 지수,민호; without it people type their name"
    )
    command.add_argument(
        "--overlap",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the rows that everyone gets, to measure agreement; each of the others goes to one person "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--merge",
        choices=("majority", "none"),
        default="majority",
        help="one row by pairwise majority, or one row a person (default: %(default)s)",
    )
    command.add_argument(
        "--seed", type=int, default=17, help="seed of the orders of rows and of answers (default: %(default)s)"
    )
    command.add_argument("--export-only", action="store_true", help="write --out from the labels there are, and end")
    command.set_defaults(handler=run_label)


def run_label(arguments: argparse.Namespace) -> int:
    """`rlhf data label`."""
    import sys
    from pathlib import Path

    from rlhf.curate.label.command import Labelling, LabelOptions

    names = [name.strip() for name in (arguments.annotators or "").split(",")]
    options = LabelOptions(
        rows=arguments.rows,
        out=Path(arguments.out),
        people=tuple(name for name in names if name),
        overlap=arguments.overlap,
        merge=arguments.merge,
        seed=arguments.seed,
        host=arguments.host,
        port=arguments.port,
    )
    labelling = Labelling(options)
    if arguments.export_only:
        sys.stderr.write(f"{labelling.export().summary()}\n")
    else:
        labelling.run()
    labelling.store.close()
    return 0
