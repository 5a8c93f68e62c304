"""The public formats of `rlhf data import`: what each reads of a row, and how it converts the row.

A converter gets a row and notes, a counter of what it leaves out or changes; it returns rows of this package, or one
judged answer, and raises a DataError, whose `where` is the key, for a row that it cannot use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlhf.curate.formats import answered, compared, judged
from rlhf.curate.formats.judged import Judged
from rlhf.data.readers import Row
from rlhf.errors import DataError

Convert = Callable[[Mapping[str, Any], Counter[str]], list[Row] | Judged]


@dataclass(frozen=True, slots=True)
class Converter:
    """How rows of one format are converted; `reads` are the paths of all keys that `convert` reads."""

    reads: frozenset[str]
    convert: Convert


@dataclass(frozen=True, slots=True)
class Choices:
    """What a caller decides: the columns of a table, marks at the ends of older rows, and which judgement counts."""

    columns: Mapping[str, str]
    separator: str = ""
    stop: str = ""
    by: str = ""


# The judgements that can rank the answers of a format; the first is the default.
JUDGEMENTS = {
    "helpsteer": judged.HELPSTEER_JUDGEMENTS,
    "ultrafeedback": compared.FEEDBACK_JUDGEMENTS,
    "pku": compared.PKU_JUDGEMENTS,
}


def converter(name: str, row: Mapping[str, Any], choices: Choices) -> Converter:
    """The converter of a format, for files whose first row is `row`.

    Raises:
        DataError: for a judgement that the format does not have.
    """
    by = _judgement(name, choices.by)
    if name == "csv":
        return Converter(frozenset(choices.columns.values()), partial(answered.from_columns, columns=choices.columns))
    if name == "openai":
        return _openai(row, choices)
    if name == "helpsteer" and "helpfulness" not in row:
        return Converter(compared.HELPSTEER_PAIR_KEYS, compared.from_helpsteer_pair)
    if by:
        return _judged(name, by)
    return _PLAIN[name]


def _judged(name: str, by: str) -> Converter:
    """Formats with several judgements, of which one ranks the answers."""
    if name == "helpsteer":
        return Converter(judged.HELPSTEER_KEYS, partial(judged.from_helpsteer, by=by))
    if name == "ultrafeedback":
        return Converter(compared.FEEDBACK_KEYS, partial(compared.from_ultrafeedback, by=by))
    return Converter(compared.PKU_KEYS, partial(compared.from_pku, by=by))


def _openai(row: Mapping[str, Any], choices: Choices) -> Converter:
    """Hosted fine-tuning: chat rows, preference rows, or the older prompt and completion."""
    if "preferred_output" in row:
        return Converter(compared.PREFERENCE_KEYS, compared.from_preference)
    if "completion" not in row:
        return _PLAIN["messages"]
    convert = partial(answered.from_completion, separator=choices.separator, stop=choices.stop)
    return Converter(answered.LEGACY_KEYS, convert)


def _judgement(name: str, given: str) -> str:
    known = JUDGEMENTS.get(name, ())
    if given and given not in known:
        expected = f"one of {', '.join(known)}" if known else "no --by, which this format does not need"
        raise DataError(f"--by {given} with --format {name}", expected=expected)
    return given or (known[0] if known else "")


_PLAIN = {
    "messages": Converter(answered.CHAT_KEYS, answered.from_messages),
    "alpaca": Converter(answered.ALPACA_KEYS, answered.from_alpaca),
    "hh": Converter(compared.PAIR_KEYS, compared.from_pair),
    "nectar": Converter(compared.NECTAR_KEYS, compared.from_nectar),
    "shp": Converter(compared.SHP_KEYS, compared.from_shp),
    "arena": Converter(compared.ARENA_KEYS, compared.from_arena),
    "stack-exchange": Converter(compared.STACK_KEYS, compared.from_stack_exchange),
    "kto": Converter(judged.KTO_KEYS, judged.from_kto),
}
