"""Commands made of options."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from rlhf.cli.parser import Command, CommandParser, Group, OptionFunction, option_command
from rlhf.config.flags import flag


@dataclass(frozen=True)
class First:
    """What is done."""

    number: int = flag(..., "a number")


@dataclass(frozen=True)
class Second:
    """How it is done."""

    slowly: bool = flag(False, "take time")


def test_a_command_of_options_calls_its_function_with_them() -> None:
    calls: list[tuple[First, Second]] = []
    loads: list[str] = []

    def run(first: First, second: Second) -> int:
        calls.append((first, second))
        return 3

    def load() -> OptionFunction:
        loads.append("once more")
        return run, (First, Second)

    parser = CommandParser(prog="it")
    command = option_command("do", "does it", load, description="one line\nanother", epilog="example:\n  it do")
    Group("group", "holds it", (command,)).add_to(parser.add_subparsers())
    assert loads == []  # flags are added once the command is chosen
    arguments = parser.parse_args(["group", "do", "--number", "5", "--slowly"])
    assert arguments.handler(arguments) == 3
    assert calls == [(First(5), Second(True))]


@pytest.mark.parametrize(
    "words",
    [
        ["file", "a=1", "b=2", "--out", "folder"],
        ["file", "--out", "folder", "a=1", "b=2"],
        ["file", "a=1", "--out", "folder", "b=2"],
        ["--out", "folder", "file", "a=1", "b=2"],
    ],
)
def test_overrides_stand_anywhere(words: list[str]) -> None:
    parser = _with_overrides()
    arguments = parser.parse_args(["do", *words])
    assert (arguments.config, arguments.out, arguments.overrides) == ("file", "folder", ["a=1", "b=2"])


def test_an_unknown_flag_is_no_override(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _with_overrides().parse_args(["do", "file", "--outt", "a=1"])
    assert "unrecognized arguments: --outt" in capsys.readouterr().err


def _with_overrides() -> CommandParser:
    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("config")
        parser.add_argument("overrides", nargs="*")
        parser.add_argument("--out")

    parser = CommandParser(prog="it", allow_abbrev=False)
    Command("do", "does it", lambda arguments: 0, flags).add_to(parser.add_subparsers())
    return parser


def test_help_keeps_lines_and_titles_groups_by_docstring(capsys) -> None:
    parser = CommandParser(prog="it")
    command = option_command(
        "do", "does it", lambda: (len, (First, Second)), description="one line\nanother", epilog="example:\n  it do"
    )
    command.add_to(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["do", "--help"])
    shown = capsys.readouterr().out
    assert "one line\nanother\n" in shown
    assert "example:\n  it do\n" in shown
    assert "How it is done:\n  --slowly" in shown
