"""The table of keys that help and errors are written from."""

from __future__ import annotations

from pydantic import Field

from rlhf.config.keys import key_table
from rlhf.config.schema import StageConfig
from rlhf.config.sections import RunSection, Section


class Inner(Section):
    """Inner keys."""

    names: list[str] = Field(default_factory=list)
    table: dict[str, int] = Field(default_factory=dict)


class Example(StageConfig):
    """A stage that gives a section other defaults than its own."""

    run: RunSection = RunSection.model_validate({"dir": "elsewhere"})
    inner: Inner | None = None


def test_the_default_is_that_of_the_stage() -> None:
    table = key_table(Example)
    assert table["run.dir"].default == '"elsewhere"'
    assert table["run.max_steps"].default == "null"
    assert table["inner"].default == "null"


def test_defaults_that_are_made_anew_are_shown_empty() -> None:
    table = key_table(Example)
    assert (table["inner.names"].default, table["inner.table"].default) == ("[]", "{}")


def test_a_section_has_its_docstring_as_description() -> None:
    assert key_table(Example)["inner"].description == "Inner keys."
    assert key_table(Example)["inner"].words == "a group of keys (names, table) or null"
