"""`rlhf data import`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill

_EXAMPLES = """examples:
  rlhf data import --in chat.txt --out chat.jsonl --me 민수
  rlhf data import --in chat.csv --out pairs.jsonl --me 민수 --style completion --stop ' END'
  rlhf data import --in table.csv --out table.jsonl --columns prompt=질문,response=답변
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.formats.importing import ImportOptions

    parser = commands.add_parser(
        "import",
        help="chat logs and public formats into one JSONL file",
        description="Reads KakaoTalk exports (PC, Android, iOS, macOS), fine-tuning files and tables, "
        "masks personal information and writes rows that every stage reads, with a manifest beside them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, ImportOptions)
    parser.set_defaults(handler=run_data_import)


def run_data_import(arguments: argparse.Namespace) -> int:
    """`rlhf data import`."""
    from rlhf.curate.formats.importing import ImportOptions, run

    return run(fill(ImportOptions, arguments))
