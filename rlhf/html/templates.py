"""The Jinja2 environment of every page, Markdown file and text report of the project.

A template lies beside the code that fills it and is named by its path in the package: `runs/report.html.j2`.
Pages extend `html/page.html.j2` (one language) or `html/bilingual.html.j2` (Korean and English with a switch) and
import the macros of `html/parts.html.j2`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rlhf.html.differences import marked_difference
from rlhf.html.intervals import place_interval
from rlhf.html.words import Words


@cache
def environment() -> Environment:
    """Escapes everything but Markdown and plain text; a name that the caller did not pass is an error."""
    made = Environment(
        loader=PackageLoader("rlhf", ""),
        autoescape=lambda name: name is None or not name.endswith((".md.j2", ".txt.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": number, "percent": percent, "interval": interval, "marked": marked_difference}
    made.globals |= {"words": Words, "place_interval": place_interval}
    return made


def render(template: str, **values: Any) -> str:
    """The text of a template with `values` as its variables."""
    return environment().get_template(template).render(values)


def number(value: float, spec: str | Callable[[float], str] = ",") -> str:
    """`value` by a format specification (`.3f`, `+.2f`, `,`) or by a function; never minus zero."""
    if callable(spec):
        return spec(value)
    return format(value, _without_minus_zero(spec))


def _without_minus_zero(spec: str) -> str:
    """The specification with the option `z`, which writes -0.00 as 0.00; integer types do not know it."""
    if not spec or spec[-1] not in "eEfFgG%":
        return spec
    sign = spec[0] if spec[0] in "+- " else ""
    return f"{sign}z{spec.removeprefix(sign)}"


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage: 0.756 is `75.6%`."""
    return f"{value:.{digits}%}"


def interval(figure: Any, spec: str | Callable[[float], str] = ".3f") -> str:
    """The ends of a figure's interval, `0.600 – 0.900`."""
    return f"{number(figure['low'], spec)} – {number(figure['high'], spec)}"
