"""`rlhf data export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Commands

_DESCRIPTION = """Writes rows for other tools:
  openai    what hosted fine-tuning takes: messages, or input with a preferred answer for rankings
  messages  {messages: [{role, content}]}
  alpaca    {instruction, input, output}; one question and one answer
  hh        {chosen, rejected}: transcripts with Human: and Assistant:, one row a pair of answers
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "export",
        help="rows for other tools: openai, messages, alpaca, hh",
        description=_DESCRIPTION,
        epilog="example: rlhf data export --format openai --in chat.jsonl --out upload.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", required=True, choices=("openai", "messages", "alpaca", "hh"), help="to write")
    parser.add_argument("--in", dest="file", required=True, metavar="FILE", help="JSONL, JSON array or CSV to read")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSONL file to write")
    parser.set_defaults(handler=run_data_export)


def run_data_export(arguments: argparse.Namespace) -> int:
    """`rlhf data export`."""
    from rlhf.curate.formats.exporting import HOSTED_MINIMUM, export_file
    from rlhf.curate.output import manifest_path

    output = export_file(arguments.file, Path(arguments.out), arguments.format)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    if arguments.format == "openai" and output.kept < HOSTED_MINIMUM:
        sys.stdout.write(f"note: hosted fine-tuning refuses files of fewer than {HOSTED_MINIMUM} rows\n")
    return 0
