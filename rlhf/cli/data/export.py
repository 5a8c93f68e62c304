"""`rlhf data export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command


def _flags(parser: argparse.ArgumentParser) -> None:
    formats = ("openai", "messages", "alpaca", "hh")
    parser.add_argument("--format", required=True, choices=formats, help="format to write")
    parser.add_argument("--in", dest="file", required=True, metavar="FILE", help="JSONL, JSON array or CSV to read")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")


def run_data_export(arguments: argparse.Namespace) -> int:
    """`rlhf data export`."""
    from rlhf.curate.formats.exporting import HOSTED_MINIMUM, export_file
    from rlhf.curate.output import manifest_path

    output = export_file(arguments.file, arguments.out, arguments.format)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    if arguments.format == "openai" and output.kept < HOSTED_MINIMUM:
        sys.stdout.write(f"note: hosted fine-tuning refuses files of fewer than {HOSTED_MINIMUM} rows\n")
    return 0


COMMAND = Command(
    "export",
    "rows for other tools: openai, messages, alpaca, hh",
    run_data_export,
    _flags,
    description="Writes rows for other tools:\n"
    "  openai    input of hosted fine-tuning: messages, or input with a preferred answer for rankings\n"
    "  messages  {messages: [{role, content}]}\n"
    "  alpaca    {instruction, input, output}; one question and one answer\n"
    "  hh        {chosen, rejected}: transcripts with Human: and Assistant:, one row per pair of answers",
    epilog="example: rlhf data export --format openai --in chat.jsonl --out upload.jsonl",
)
