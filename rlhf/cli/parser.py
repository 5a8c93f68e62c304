"""What a command is: its words, its function, and its flags, which are added only once the command is chosen."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rlhf.config.flags import add_flags, fill

Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"
AddFlags: TypeAlias = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `flags` may import the options it fills, which `rlhf --help` then need not.

    `files` names the arguments that hold data files, which are looked for before anything heavy is imported.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    flags: AddFlags
    description: str = ""
    epilog: str = ""
    files: tuple[str, ...] = ()

    def add_to(self, commands: Commands) -> None:
        """Makes it a command of the group."""
        parser = commands.add_parser(
            self.name, help=self.help, description=self.description or self.help, epilog=self.epilog, flags=self.flags
        )
        parser.set_defaults(handler=self._checked if self.files else self.run)

    def _checked(self, arguments: argparse.Namespace) -> int:
        from rlhf.data.embedded import require_file

        for name in self.files:
            given = getattr(arguments, name) or ()
            for path in (given,) if isinstance(given, str) else given:
                require_file(path, f"--{name.replace('_', '-')}")
        return self.run(arguments)


@dataclass(frozen=True, slots=True)
class Group:
    """Commands under one word, such as `rlhf data`."""

    name: str
    help: str
    commands: Sequence[Command]
    metavar: str = "KIND"
    description: str = ""
    epilog: str = ""

    def add_to(self, commands: Commands) -> None:
        """Makes it, with all it holds, a command of the group above."""
        parser = commands.add_parser(
            self.name, help=self.help, description=self.description or self.help, epilog=self.epilog
        )
        inner = parser.add_subparsers(required=True, metavar=self.metavar)
        for command in self.commands:
            command.add_to(inner)


class CommandParser(argparse.ArgumentParser):
    """A parser whose flags are added when it first has words to read.

    `overrides` (key=value) may stand before flags and behind them; argparse by itself takes them before flags alone.
    """

    def __init__(self, *, flags: AddFlags | None = None, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)
        self._flags = flags

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        flags, self._flags = self._flags, None
        if flags is not None:
            flags(self)
        found, left = super().parse_known_args(args, namespace)
        if hasattr(found, "overrides"):
            found.overrides = [*found.overrides, *(word for word in left if not word.startswith("-"))]
            left = [word for word in left if word.startswith("-")]
        return found, left


class _Formatter(argparse.HelpFormatter):
    """Keeps the line breaks of descriptions and examples, and wraps each line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(line if line.startswith("  ") else fill(line, width, indent) for line in text.splitlines())


OptionFunction: TypeAlias = tuple[Callable[..., int], tuple[type, ...]]


def option_command(
    name: str, help: str, load: Callable[[], OptionFunction], *, description: str = "", epilog: str = ""
) -> Command:
    """A command that is a function of option dataclasses, whose fields are its flags.

    Args:
        load: imports and returns the function and the dataclasses, in the order of its arguments; all but the first
            have a group of their own in the help, titled by the first line of their docstrings.
    """

    def flags(parser: argparse.ArgumentParser) -> None:
        first, *others = load()[1]
        add_flags(parser, first)
        for options in others:
            title = (options.__doc__ or "").partition("\n")[0].rstrip(".")
            add_flags(parser.add_argument_group(title), options)

    def run(arguments: argparse.Namespace) -> int:
        function, options = load()
        return function(*(fill(each, arguments) for each in options))

    return Command(name, help, run, flags, description, epilog)
