"""`rlhf data import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.formats.importing import ImportOptions
    from rlhf.curate.kakao.turns import ChatOptions

    parser.add_argument("--in", dest="files", nargs="+", required=True, metavar="FILE", help="files to read")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl", help="file to write")
    add_flags(parser, ImportOptions, only=("format",))
    add_flags(parser.add_argument_group("chats"), ChatOptions)
    add_flags(parser.add_argument_group("rows"), ImportOptions, skip=("format",))
    keep = "leave phone numbers, e-mail and other addresses as they are; otherwise needs pip install -e '.[pii]'"
    parser.add_argument("--keep-pii", action="store_true", help=keep)


def run_data_import(arguments: argparse.Namespace) -> int:
    """`rlhf data import`."""
    from rlhf.curate.formats.importing import ImportOptions, import_files
    from rlhf.curate.kakao.turns import ChatOptions
    from rlhf.curate.output import manifest_path
    from rlhf.curate.privacy import mask_personal

    mask = None if arguments.keep_pii else mask_personal
    options = fill(ImportOptions, arguments, chat=fill(ChatOptions, arguments), mask=mask)
    output = import_files(arguments.files, arguments.out, options)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    for file, columns in output.extra["columns"].items():
        shown = ", ".join(f"{column} -> {role or 'not used'}" for column, role in columns.items())
        sys.stdout.write(f"columns of {file}: {shown}\n")
    return 0


COMMAND = Command(
    "import",
    "chat logs and public formats into one JSONL file",
    run_data_import,
    _flags,
    description="Reads KakaoTalk exports (PC, Android, iOS, macOS), fine-tuning files and tables, masks personal "
    "information and writes rows that every stage reads, with a manifest beside them.",
    epilog="examples:\n"
    "  rlhf data import --in chat.txt --out chat.jsonl --me 민수\n"
    "  rlhf data import --in chat.csv --out pairs.jsonl --me 민수 --style completion --stop ' END'\n"
    "  rlhf data import --in table.csv --out table.jsonl --columns prompt=질문,response=답변",
)
