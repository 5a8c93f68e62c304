"""`rlhf chat`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, add_section_flags, fill_section

if TYPE_CHECKING:
    from rlhf.serve.chat.conversation import Conversation


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.config.sections import SamplingSection
    from rlhf.serve.options import ServingSettings

    parser.add_argument("model", metavar="MODEL", help="run folder or model folder")
    parser.add_argument("--system", default="", metavar="TEXT", help="instructions placed before the conversation")
    sampling = ("temperature", "top_p", "top_k", "max_new_tokens", "stop")
    add_section_flags(parser, SamplingSection, sampling, temperature=0.7, max_new_tokens=512)
    seed = "makes answers repeatable (default: a new seed for each answer)"
    parser.add_argument("--seed", type=int, metavar="N", help=seed)
    add_flags(parser, ServingSettings, only=("template", "dtype"))


def run_chat(arguments: argparse.Namespace) -> int:
    """`rlhf chat`."""
    from rlhf.config.sections import SamplingSection
    from rlhf.serve.chat.conversation import ChatModel, Conversation

    sampling = fill_section(SamplingSection, arguments)
    loading = {"dtype": arguments.dtype, "template": arguments.template}
    model = ChatModel.load(arguments.model, sampling, arguments.seed, **loading)
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


COMMAND = Command(
    "chat",
    "talk to a model in the terminal",
    run_chat,
    _flags,
    description="A conversation in the terminal; answers appear while they are written.",
    epilog="examples:\n"
    "  rlhf chat runs/ppo\n"
    '  rlhf chat runs/ppo --temperature 0.7 --top-p 0.9 --system "당신은 다정한 상담사입니다."\n'
    "in the conversation: /system TEXT  /reset  /help  /quit; Ctrl-C stops an answer",
)
