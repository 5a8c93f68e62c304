"""Public rows with one judged answer each: KTO's good and bad answers, HelpSteer's scores.

Stage 2 compares answers to one prompt, so rows of the same prompt are brought together wherever they stand in the file.
An answer without another to its prompt is refused, unless good answers alone are asked for, as demonstrations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.curate.formats.compared import ranked
from rlhf.curate.formats.turns import (
    QUESTION_KEYS,
    SYSTEM,
    TURN_KEYS,
    asked_turns,
    check_question,
    in_lists,
    turns_of,
    with_system,
)
from rlhf.data.public_shapes import LABELS, LISTS, label_of
from rlhf.data.readers import Row
from rlhf.data.records import check_scores
from rlhf.data.row_values import at_key, text_at
from rlhf.errors import DataError

Notes = Counter[str]
_ANSWERS = ("completion", "response", "output")
KTO_KEYS = (
    QUESTION_KEYS | frozenset((SYSTEM, *LABELS, *_ANSWERS)) | in_lists((*LISTS, "prompt", "completion", "response"))
) - {"completion", "response"} | {f"completion[].{key}" for key in TURN_KEYS}
HELPSTEER_JUDGEMENTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
HELPSTEER_KEYS = frozenset(("prompt", "response", *HELPSTEER_JUDGEMENTS))
ALONE_FIX = "add a judged answer to the same prompt, or write the good ones as demonstrations: --good SCORE (kto: 1)"


@dataclass(frozen=True, slots=True)
class Judged:
    """The turns before an answer, the answer, and its score; higher is better."""

    prompt: list[Row]
    answer: str
    score: float


def from_kto(row: Mapping[str, Any], notes: Notes) -> Judged:
    """KTO of TRL (prompt, completion, label), LLaMA-Factory (kto_tag) and ms-swift (messages, label); 1 is good."""
    key, good = label_of(row)
    if good is None:
        raise DataError(f"is {row.get(key)!r}", where=f"key `{key}`", expected="true (good) or false (bad)")
    turns = _answered_turns(row)
    if turns[-1]["role"] != "assistant":
        raise DataError("does not end in an answer", where=f"key `{key}`")
    check_question(turns[:-1])
    return Judged(turns[:-1], turns[-1]["content"], float(good))


def _answered_turns(row: Mapping[str, Any]) -> list[Row]:
    beside = next((key for key in LISTS if row.get(key)), "")
    if beside:
        return with_system(row, turns_of(row[beside], beside))
    name = next((name for name in _ANSWERS if row.get(name) is not None), _ANSWERS[0])
    asked = asked_turns(row)
    if isinstance(row.get(name), list):
        return turns_of([*asked, *row[name]], name)
    return [*asked, {"role": "assistant", "content": text_at(row, name)}]


def from_helpsteer(row: Mapping[str, Any], notes: Notes, by: str) -> Judged:
    """HelpSteer 1 and 2: an answer and five judgements of it, of which `by` is the score."""
    with at_key(by):
        check_scores([row.get(by)], 1)  # type: ignore[list-item]
    asked = asked_turns({"prompt": row.get("prompt")})
    check_question(asked)
    return Judged(asked, text_at(row, "response"), float(row[by]))


Placed = tuple[int, Judged | DataError]


def rankings(rows: Iterable[Placed]) -> Iterator[tuple[int, list[Row] | DataError]]:
    """(line, row) for every prompt with answers of different scores; (line, error) for every row that is not in one.

    All rows are kept in memory until the last is read.
    """
    groups: dict[str, list[tuple[int, Judged]]] = {}
    for line, judged in rows:
        if isinstance(judged, DataError):
            yield line, judged
        else:
            groups.setdefault(json.dumps(judged.prompt, ensure_ascii=False), []).append((line, judged))
    for group in groups.values():
        yield from _ranking(group)


def _ranking(group: list[tuple[int, Judged]]) -> Iterator[tuple[int, list[Row] | DataError]]:
    scores: dict[str, float] = {}
    for line, judged in group:
        before = scores.setdefault(judged.answer, judged.score)
        if before != judged.score:
            yield line, DataError("an answer that an earlier row judges differently")
    try:
        if len(scores) == 1:
            raise DataError("one judged answer to its prompt, which stage 2 cannot compare", fix=ALONE_FIX)
        prompt = group[0][1].prompt
        yield group[0][0], [ranked(prompt, list(scores), scores=list(scores.values()))]
    except DataError as error:
        for line, _ in group:
            yield line, error


def good_answers(rows: Iterable[Placed], least: float) -> Iterator[tuple[int, list[Row] | DataError]]:
    """(line, demonstration) for every answer of at least this score; (line, error) for the others."""
    for line, judged in rows:
        if isinstance(judged, DataError):
            yield line, judged
        elif judged.score < least:
            yield line, DataError(f"an answer of a score below {least:g}")
        else:
            yield line, [{"messages": [*judged.prompt, {"role": "assistant", "content": judged.answer}]}]
