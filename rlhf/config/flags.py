"""Command-line flags declared once: in the dataclass, or the configuration section, that they fill.

    @dataclass(frozen=True)
    class SplitOptions:
        seed: int = flag(17, "another seed gives another split")
        shares: Shares = flag(..., "shares of train, dev and test", metavar="NAME=SHARE,...", parse=parse_shares)

    add_flags(parser, SplitOptions)               # --seed N, --shares NAME=SHARE,...
    options = fill(SplitOptions, parser.parse_args())

The type gives the argument: `int`, `float`, `str` and `Path` take one word, `Literal` one of its values, `bool` none
(`--x`, and `--no-x` where the default is True), a tuple or a list may be repeated, `X | None` is an X.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from rlhf.config.sections import Section

    SectionT = TypeVar("SectionT", bound=Section)

T = TypeVar("T")
Parser = argparse.ArgumentParser | argparse._ArgumentGroup
_KEY = "flag"
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True, slots=True)
class Flag:
    """What a field says about its flag beside name, type and default; see `flag`."""

    help: str
    name: str | None = None
    metavar: str | None = None
    choices: Sequence[Any] | None = None
    parse: Callable[[str], Any] | None = None
    nargs: str | None = None
    least: float | None = None
    shown: str | None = None
    positional: bool = False


@overload
def flag(default: EllipsisType, help: str, **details: Any) -> Any: ...
@overload
def flag(default: T, help: str, **details: Any) -> T: ...
def flag(default: Any, help: str, **details: Any) -> Any:
    """A dataclass field with its flag. `...` as default makes the flag required.

    Args:
        default: a list or dict is copied for each instance.
        help: what the flag means; "(default: X)" is added where there is a default to show.
        details: name ("--in"; otherwise the field's name with dashes); metavar; choices; parse (from one word; raises
            argparse.ArgumentTypeError); nargs (such as "+", for several words after one flag); least (smallest
            number allowed, checked by `fill`); shown (the default in words, "" for none); positional (True for an
            argument without dashes).
    """
    metadata = {_KEY: Flag(help, **details)}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def add_flags(
    parser: Parser,
    options: type,
    *,
    names: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    **defaults: Any,
) -> None:
    """Adds the flags of a dataclass's fields, in their order.

    Args:
        names: other flag names by field, where two dataclasses of one command would share one.
        only, skip: the fields to add, or to leave out.
        defaults: defaults of this command by field; `...` requires the flag.
    """
    wanted = None if only is None else set(only)
    for field, kind, details in _flagged(options, names or {}):
        if field.name not in skip and (wanted is None or field.name in wanted):
            _add(parser, field.name, kind, details, defaults.get(field.name, _default_of(field)))


def fill(
    options: type[T], arguments: argparse.Namespace, *, names: Mapping[str, str] | None = None, **values: Any
) -> T:
    """The dataclass, its flagged fields taken from the parsed arguments where `values` does not give them.

    A field whose flag was not added keeps its default. Raises: ConfigError for a number below its `least`.
    """
    for field, kind, details in _flagged(options, names or {}):
        dest = _dest(field.name, details)
        if field.name in values or not hasattr(arguments, dest):
            continue
        value = getattr(arguments, dest)
        if details.least is not None and value is not None and value < details.least:
            raise ConfigError(f"is {value}", where=details.name or field.name, expected=f"at least {details.least:g}")
        values[field.name] = tuple(value) if get_origin(_plain(kind)) is tuple and value is not None else value
    return options(**values)


def add_section_flags(
    parser: Parser, section: type[Section], names: Sequence[str], *, prefix: str = "", **defaults: Any
) -> None:
    """Adds flags for keys of a configuration section, with the keys' descriptions as help.

    Args:
        names: the keys, in the order of the flags.
        prefix: of the flags' names: "vllm" makes --vllm-python of the key python.
        defaults: defaults of this command, where they differ from the section's.
    """
    for name in names:
        field = section.model_fields[name]
        default = defaults.get(name, field.get_default(call_default_factory=True))
        details = Flag(field.description or "", name=_flag_name(_prefixed(prefix, name)))
        _add(parser, name, field.annotation, details, default)


def fill_section(
    section: type[SectionT], arguments: argparse.Namespace, *, prefix: str = "", **values: Any
) -> SectionT:
    """The section, from every argument named like one of its keys, after `prefix`.

    Raises: ConfigError that names each flag whose value the section refuses.
    """
    from pydantic import ValidationError

    names = {name: _prefixed(prefix, name) for name in section.model_fields}
    given = {name: getattr(arguments, dest) for name, dest in names.items() if hasattr(arguments, dest)}
    try:
        return section(**{**given, **values})
    except ValidationError as error:
        problems = [
            ConfigError(
                f"is {each['input']}", where=_flag_name(_prefixed(prefix, str(each["loc"][0]))), expected=each["msg"]
            )
            for each in error.errors()
        ]
        raise ConfigError.collect(problems) from None


def _add(parser: Parser, field: str, kind: Any, details: Flag, default: Any) -> None:
    """One argument of argparse."""
    kind, required = _plain(kind), default is ...
    words: dict[str, Any] = {"help": _help(details, default)}
    if not details.positional:
        words |= {"dest": _dest(field, details), "required": required}
    if not required:
        words["default"] = default
    if kind is bool:
        words["action"] = argparse.BooleanOptionalAction if default is True else "store_true"
        parser.add_argument(str(details.name), **words)
        return
    if get_origin(kind) in (tuple, list) and details.parse is None:
        kind = get_args(kind)[0]
        words |= {"nargs": details.nargs} if details.nargs else {} if details.positional else {"action": "append"}
        if not required:
            words["default"] = list(default)
    elif details.nargs:
        words["nargs"] = details.nargs
    choices = details.choices or (get_args(kind) if get_origin(kind) is Literal else None)
    if choices:
        words |= {"choices": tuple(choice for choice in choices if choice != ""), "type": type(choices[-1])}
    else:
        words |= {"type": details.parse or kind, "metavar": _METAVARS.get(kind)}
    if details.metavar:
        words["metavar"] = details.metavar
    parser.add_argument(*([field] if details.positional else [str(details.name)]), **words)


def _flagged(options: type, names: Mapping[str, str]) -> Iterator[tuple[dataclasses.Field[Any], Any, Flag]]:
    """Every field that has a flag, with its type and the flag, whose name is filled in."""
    for field in dataclasses.fields(options):
        details = field.metadata.get(_KEY)
        if details is not None:
            name = names.get(field.name) or details.name or _flag_name(field.name)
            yield field, _type_of(options, field), dataclasses.replace(details, name=name)


def _type_of(options: type, field: dataclasses.Field[Any]) -> Any:
    """The type of one field alone: those without a flag may name what is imported for type checking only."""
    owner = next(each for each in options.__mro__ if field.name in inspect.get_annotations(each))
    holder = SimpleNamespace(__annotations__={field.name: field.type})
    return get_type_hints(holder, vars(sys.modules[owner.__module__]))[field.name]


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return ... if field.default is dataclasses.MISSING else field.default


def _plain(kind: Any) -> Any:
    """X of `X | None`."""
    if get_origin(kind) in (Union, UnionType):
        return next(option for option in get_args(kind) if option is not type(None))
    return kind


def _prefixed(prefix: str, name: str) -> str:
    return f"{prefix}_{name}" if prefix else name


def _flag_name(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _dest(field: str, details: Flag) -> str:
    """The attribute of the namespace: the flag's name, as argparse makes it, so that other names stay apart."""
    return field if details.positional else str(details.name).lstrip("-").replace("-", "_")


def _help(details: Flag, default: Any) -> str:
    """The help with its default, where there is one to show and the text does not say it already."""
    shown = details.shown
    if shown is None:
        plain = isinstance(default, str | int | float) and not isinstance(default, bool)
        shown = str(default) if plain and "(default" not in details.help else ""
    return (f"{details.help} (default: {shown})" if shown else details.help).replace("%", "%%")
