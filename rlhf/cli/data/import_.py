"""`rlhf data import`."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import timedelta
from pathlib import Path

from rlhf.cli.parser import Commands

_FORMATS = ("auto", "kakao", "openai", "messages", "alpaca", "hh", "csv")
_ROLES = ("prompt", "response", "input", "system", "chosen", "rejected")
_EXAMPLES = """examples:
  rlhf data import --in chat.txt --out chat.jsonl --me 민수
  rlhf data import --in chat.csv --out pairs.jsonl --me 민수 --style completion --stop ' END'
  rlhf data import --in table.csv --out table.jsonl --columns prompt=질문,response=답변
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "import",
        help="chat logs and public formats into one JSONL file",
        description="Reads KakaoTalk exports (PC, Android, iOS, macOS), fine-tuning files and tables, "
        "masks personal information and writes rows that every stage reads, with a manifest beside them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--in", dest="files", nargs="+", required=True, metavar="FILE", help="files to read")
    parser.add_argument("--out", required=True, metavar="OUT.jsonl", help="file to write")
    parser.add_argument("--format", choices=_FORMATS, default="auto", help="of the files (default: by their content)")
    chat = parser.add_argument_group("chats")
    chat.add_argument(
        "--me", action="append", default=[], metavar="NAME", help="speaker to imitate; again for other names of theirs"
    )
    chat.add_argument("--partner", default="", metavar="NAME", help="of a group keep this one other speaker only")
    chat.add_argument(
        "--gap", type=_gap, default="6h", metavar="6h", help="a longer silence starts a new conversation: 30m, 6h, 2d"
    )
    style = parser.add_argument_group("rows")
    style.add_argument(
        "--style", choices=("messages", "completion"), default="messages", help="messages, or prompt and completion"
    )
    style.add_argument("--separator", type=_unescaped, default="\n\n###\n\n", help=r"ends a prompt (\n\n###\n\n)")
    style.add_argument("--stop", type=_unescaped, default="\n\n@@@", help=r"ends a completion (\n\n@@@)")
    style.add_argument(
        "--columns", type=_columns, default={}, metavar="ROLE=NAME,...", help=f"columns of a table: {', '.join(_ROLES)}"
    )
    parser.add_argument(
        "--keep-pii",
        action="store_true",
        help="leave phone numbers, e-mail and other addresses as they are; without it the extra `pii` is needed",
    )
    parser.set_defaults(handler=run_data_import)


def run_data_import(arguments: argparse.Namespace) -> int:
    """`rlhf data import`."""
    from rlhf.curate.formats.importing import ImportOptions, import_files
    from rlhf.curate.kakao.turns import ChatOptions
    from rlhf.curate.output import manifest_path
    from rlhf.curate.privacy import mask_personal

    options = ImportOptions(
        format=arguments.format,
        chat=ChatOptions(tuple(arguments.me), arguments.partner, arguments.gap),
        style=arguments.style,
        separator=arguments.separator,
        stop=arguments.stop,
        columns=arguments.columns,
        mask=None if arguments.keep_pii else mask_personal,
    )
    output = import_files(arguments.files, Path(arguments.out), options)
    sys.stdout.write(f"{output.summary()}\nmanifest: {manifest_path(output.path)}\n")
    for file, columns in output.extra["columns"].items():
        shown = ", ".join(f"{column} -> {role or 'not used'}" for column, role in columns.items())
        sys.stdout.write(f"columns of {file}: {shown}\n")
    return 0


def _gap(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 30m, 6h or 2d")
    return int(match[1]) * {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[match[2]]


def _unescaped(text: str) -> str:
    """Shells pass a typed \\n as two characters."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    columns = {role.strip(): name.strip() for role, _, name in pairs}
    if not all(columns.values()) or not set(columns) <= set(_ROLES):
        raise argparse.ArgumentTypeError(f"{text!r} is not like prompt=질문,response=답변, of {', '.join(_ROLES)}")
    return columns
