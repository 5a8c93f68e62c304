"""`rlhf data export`."""

from __future__ import annotations

import argparse

from rlhf.cli.parser import Commands
from rlhf.config.flags import add_flags, fill

_DESCRIPTION = """Writes rows for other tools:
  openai    what hosted fine-tuning takes: messages, or input with a preferred answer for rankings
  messages  {messages: [{role, content}]}
  alpaca    {instruction, input, output}; one question and one answer
  hh        {chosen, rejected}: transcripts with Human: and Assistant:, one row per pair of answers
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    from rlhf.curate.formats.exporting import ExportOptions

    parser = commands.add_parser(
        "export",
        help="rows for other tools: openai, messages, alpaca, hh",
        description=_DESCRIPTION,
        epilog="example: rlhf data export --format openai --in chat.jsonl --out upload.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, ExportOptions)
    parser.set_defaults(handler=run_data_export)


def run_data_export(arguments: argparse.Namespace) -> int:
    """`rlhf data export`."""
    from rlhf.curate.formats.exporting import ExportOptions, run

    return run(fill(ExportOptions, arguments))
