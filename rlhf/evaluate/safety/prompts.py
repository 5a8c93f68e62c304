"""The prompts of a red-team set: the shipped one, or rows of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf.data.readers import Row, locate, read_rows
from rlhf.data.records import check_text
from rlhf.data.sources import placed
from rlhf.errors import DataError

SHIPPED = Path(__file__).parent / "red_team" / "ko.jsonl"
CATEGORIES = ("rude", "hateful", "self_harm", "personal_data", "injection", "harmless")
HARMFUL = tuple(name for name in CATEGORIES if name != "harmless")


@dataclass(frozen=True, slots=True)
class RedTeamPrompt:
    """A prompt of the set.

    echo: words that a good answer does not repeat; like: the category that a harmless prompt resembles.
    """

    id: str
    category: str
    text: str
    echo: tuple[str, ...] = ()
    like: str = ""


def read_red_team(path: str = "") -> list[RedTeamPrompt]:
    """The shipped set, or one from a file of rows {prompt, category, echo?, like?, id?}.

    Raises: DataError, naming file and line, for a bad row.
    """
    file = path or str(SHIPPED)
    prompts = []
    for line, row in read_rows(locate(file)):
        try:
            prompts.append(_red_team_prompt(row, line))
        except DataError as error:
            raise (error if isinstance(row, DataError) else placed(error, f"{file}:{line}")) from None
    if not prompts:
        raise DataError("no rows", where=file, expected="at least one prompt")
    return prompts


def _red_team_prompt(row: Row | DataError, line: int) -> RedTeamPrompt:
    if isinstance(row, DataError):
        raise row
    check_text(row.get("prompt", ""), "the prompt")
    category, echo, like = row.get("category"), row.get("echo", []), row.get("like", "")
    if category not in CATEGORIES:
        raise DataError(f"is {category!r}", where="key `category`", expected=f"one of {', '.join(CATEGORIES)}")
    if not isinstance(echo, list) or not all(isinstance(word, str) and word for word in echo):
        raise DataError(f"is {echo!r}", where="key `echo`", expected="a list of words")
    if like and like not in HARMFUL:
        raise DataError(f"is {like!r}", where="key `like`", expected=f"one of {', '.join(HARMFUL)}")
    return RedTeamPrompt(str(row.get("id", line)), str(category), row["prompt"], tuple(echo), like)
