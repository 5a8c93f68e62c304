"""Sets of criteria in Korean by which answers are judged, as YAML that a user copies and edits."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from rlhf.config.yaml_lines import KeyOrigin, KeyPath, dotted, read
from rlhf.errors import ConfigError

FOLDER = Path(__file__).parent / "sets"
LOWEST, HIGHEST = 1, 5  # points per criterion
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_EXAMPLE = "rlhf data judge --print-criteria conversation > my.yaml"


class Criterion(BaseModel):
    """One criterion, for which an answer gets 1 to 5 points; `low` and `high` describe 1 and 5."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    definition: Text
    low: Text
    high: Text

    @field_validator("name")
    @classmethod
    def _fits_the_form(cls, value: str) -> str:
        if any(character in value for character in ":=：*#\n") or any(character.isdigit() for character in value):
            raise ValueError(f"{value!r} holds a digit or one of : = * #, by which the filled form is parsed")
        return value


class CriteriaSet(BaseModel):
    """The criteria for one kind of data, and the steps by which a judge arrives at its scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    task: Text
    steps: tuple[Text, ...] = Field(min_length=1)
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @field_validator("criteria")
    @classmethod
    def _named_apart(cls, value: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
        names = [criterion.name for criterion in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two criteria are called {', '.join(twice)}")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(criterion.name for criterion in self.criteria)

    @property
    def highest_sum(self) -> int:
        """The most points an answer can have over all criteria."""
        return HIGHEST * len(self.criteria)


def shipped_names() -> list[str]:
    """The sets that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def criteria_text(name: str) -> str:
    """The YAML of a shipped set, comments included.

    Raises: ConfigError for an unknown name.
    """
    return _file_of(name).read_text(encoding="utf-8")


def load_criteria(name_or_path: str) -> CriteriaSet:
    """A shipped set by name, or one from a YAML file.

    Raises: ConfigError with file, line and key for a file that is not a set of criteria.
    """
    path = _file_of(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), fix="save it as UTF-8 text") from None
    values, origins, problems = read(text, lambda line: f"{path}:{line}")
    if problems:
        raise ConfigError.collect(problems)
    if not isinstance(values, dict):
        raise ConfigError("holds no keys", where=str(path), expected="task, steps and criteria", fix=_EXAMPLE)
    try:
        return CriteriaSet.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise ConfigError.collect([_explained(each, origins, str(path)) for each in error.errors()]) from None


def _file_of(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError("no such file", where=name_or_path, fix=_EXAMPLE)
    names = shipped_names()
    if name_or_path in names:
        return FOLDER / f"{name_or_path}.yaml"
    nearest = difflib.get_close_matches(name_or_path, names, n=1, cutoff=0.0)
    raise ConfigError(
        f"no criteria {name_or_path!r}",
        where="--criteria",
        expected=f"{', '.join(names)}, or a YAML file of your own",
        fix=f"the nearest is {nearest[0]}; to edit one: {_EXAMPLE}",
    )


def _explained(error: Any, origins: dict[KeyPath, KeyOrigin], file: str) -> ConfigError:
    """An error of pydantic with the file and line of its key."""
    path: KeyPath = tuple(error["loc"])
    known = next((origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in origins), None)
    where = f"{known.place if known else file}  {dotted(path)}"
    if error["type"] == "extra_forbidden":
        fields = list(Criterion.model_fields if path[0] == "criteria" else CriteriaSet.model_fields)
        nearest = difflib.get_close_matches(str(path[-1]), fields, n=1, cutoff=0.0)[0]
        return ConfigError("unknown key", where=where, expected=", ".join(fields), fix=f"the nearest is {nearest}")
    message = str(error["msg"]).removeprefix("Value error, ")
    fix = "add it" if error["type"] == "missing" else "correct the value"
    return ConfigError(message[0].lower() + message[1:], where=where, fix=fix)
