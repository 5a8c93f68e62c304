"""`rlhf chat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf.cli.parser import Commands

if TYPE_CHECKING:
    from rlhf.serve.chat.conversation import Conversation

_EXAMPLES = """examples:
  rlhf chat runs/ppo
  rlhf chat runs/ppo --temperature 0.7 --top-p 0.9 --system "당신은 다정한 상담사입니다."
in the conversation: /system TEXT  /reset  /help  /quit; Ctrl-C stops an answer
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "chat",
        help="talk to a model in the terminal",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A conversation in the terminal; answers appear while they are written.",
        epilog=_EXAMPLES,
    )
    command.add_argument("model", metavar="MODEL", help="run folder or model folder")
    command.add_argument("--system", default="", metavar="TEXT", help="instructions that stand before the conversation")
    command.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default: %(default)s)")
    command.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="keep the likeliest tokens of this mass (default: all)"
    )
    command.add_argument("--top-k", type=int, default=0, metavar="N", help="keep the N likeliest tokens (default: all)")
    command.add_argument(
        "--max-new-tokens", type=int, default=512, metavar="N", help="longest answer (default: %(default)s)"
    )
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="text that ends an answer")
    command.add_argument("--seed", type=int, metavar="N", help="makes answers repeatable (default: another every time)")
    command.add_argument(
        "--template", metavar="NAME", help="chat template, preset or Jinja file, for a tokenizer without one"
    )
    command.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the weights; auto is bfloat16 on a GPU and float32 elsewhere (default: %(default)s)",
    )
    command.set_defaults(handler=run_chat)


def run_chat(arguments: argparse.Namespace) -> int:
    """`rlhf chat`."""
    from pydantic import ValidationError

    from rlhf.config.sections import SamplingSection
    from rlhf.errors import ConfigError
    from rlhf.serve.chat.conversation import ChatModel, Conversation

    names = ("temperature", "top_p", "top_k", "max_new_tokens", "stop")
    try:
        sampling = SamplingSection(**{name: getattr(arguments, name) for name in names})
    except ValidationError as error:
        first = error.errors()[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"is {first['input']}", where=f"--{flag}", expected=str(first["msg"])) from None
    model = ChatModel.load(
        arguments.model, sampling, arguments.seed, dtype=arguments.dtype, template=arguments.template
    )
    talk(Conversation(model, arguments.system), _read_line, _write)
    return 0


def _read_line() -> str:
    if sys.stdin.isatty():
        import readline

        assert readline  # input() edits lines with it: whole Hangul syllables, history
    return input("나> " if sys.stdin.isatty() else "")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def talk(conversation: Conversation, read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Reads lines and writes answers until the input ends or /quit."""
    while True:
        try:
            line = read().strip()
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write("\n(/quit ends the conversation)\n")
            continue
        if line == "/quit":
            return
        pieces = conversation.turn(line)
        try:
            for piece in pieces:
                write(piece)
        except KeyboardInterrupt:  # while a piece was shown; what was written stays a part of the conversation
            pieces.close()
            write(" (stopped)\n")
