"""The G-Eval table: mean points of each model by criterion, with intervals over prompts, from stored scores.

A stored score is a row {prompt, response, scores, criteria} with `model` (and `set`, `judge`), or with a `source`
whose last part, after the last slash, is the model and whose rest is the set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.curate.judge.criteria import HIGHEST, LOWEST
from rlhf.curate.label.agreement import ordinal_alpha
from rlhf.data.readers import Row, locate, read_rows
from rlhf.data.sources import OnBadRow, placed
from rlhf.errors import DataError
from rlhf.evaluate.intervals import Bounds, Figure, mean_figure, ratio_figure

WHOLE = "평균"  # the mean over criteria, as the table calls it


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Points a judge gave one answer, one per criterion."""

    prompt: str
    response: str
    model: str
    set: str
    judge: str
    criteria: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the criteria, points."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True, slots=True)
class StoredScores:
    """The usable rows, and a line for each row that is skipped."""

    rows: list[ScoreRow]
    problems: list[str]


def read_scores(path: str, on_bad_row: OnBadRow = "error") -> StoredScores:
    """Stored scores of a file. Raises DataError, naming file and line, for a bad row or a file without a usable one."""
    rows, problems = [], []
    for line, row in read_rows(locate(path)):
        try:
            rows.append(score_row(row))
        except DataError as error:
            placed_error = error if isinstance(row, DataError) else placed(error, f"{path}:{line}")
            if on_bad_row == "error":
                fix = placed_error.fix.replace('on_bad_row="skip"', "--on-bad-row skip")
                raise DataError(
                    placed_error.problem, where=placed_error.where, expected=placed_error.expected, fix=fix
                ) from None
            problems.append(f"line {line}: {error.problem}")
    if not rows:
        raise DataError("no row holds scores", where=path, expected="rows {prompt, response, scores, criteria, model}")
    return StoredScores(rows, problems)


def score_row(row: Row | DataError) -> ScoreRow:
    """One stored row, checked. Raises DataError, naming the key, for a bad one."""
    if isinstance(row, DataError):
        raise row
    criteria, scores = row.get("criteria"), row.get("scores")
    if not isinstance(criteria, list) or not criteria or not all(isinstance(name, str) for name in criteria):
        raise DataError(f"is {criteria!r}", where="key `criteria`", expected="a list of names")
    if not isinstance(scores, list) or len(scores) != len(criteria) or not all(map(_is_number, scores)):
        raise DataError(f"is {scores!r}", where="key `scores`", expected=f"{len(criteria)} numbers, one per criterion")
    prompt = row.get("prompt")
    if not prompt:
        raise DataError("is missing", where="key `prompt`", expected="the prompt: intervals are over prompts")
    group, model = _model_of(row)
    asked = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, sort_keys=True)
    points = tuple(float(score) for score in scores)
    answer, judge = str(row.get("response", "")), str(row.get("judge", ""))
    return ScoreRow(asked, answer, model, group, judge, tuple(criteria), points)


def geval_table(rows: Sequence[ScoreRow], against: str | None = None) -> dict[str, Any]:
    """The table, with a part per set, judge and list of criteria, and the agreement of judges where there are several.

    Args:
        against: the model the others are compared with; in parts without it, the model with the highest mean.
    """
    parts = _grouped(rows, lambda row: (row.set, row.judge, row.criteria))
    tables = [_part(found, against) for found in parts.values()]
    judges = sorted({row.judge for row in rows})
    table: dict[str, Any] = {"num_scores": len(rows), "judges": judges, "parts": tables}
    if len(judges) > 1:
        table["agreement"] = agreement(rows)
    return table


def agreement(rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """Krippendorff's alpha (ordinal) of the judges, over answers that two or more of them scored."""
    judges = sorted({row.judge for row in rows})
    found: dict[str, Any] = {"num_answers": 0, "alpha": {}, "mean_points": {}}
    units = _grouped(rows, lambda row: (row.set, row.model, row.prompt, row.response))
    shared = [unit for unit in units.values() if len({row.judge for row in unit}) > 1]
    found["num_answers"] = len(shared)
    names = list(dict.fromkeys(name for row in rows for name in row.criteria))
    for name in [*names, WHOLE]:
        given = [{row.judge: _points(row, name) for row in unit} for unit in shared]
        found["alpha"][name] = ordinal_alpha([[unit.get(judge) for unit in given] for judge in judges])
    for judge in judges:
        found["mean_points"][judge] = float(np.mean([row.mean for row in rows if row.judge == judge]))
    return found


def _part(rows: Sequence[ScoreRow], against: str | None) -> dict[str, Any]:
    """One set by one judge: a line per model, best first, and differences on the prompts that two models share."""
    by_model = _grouped(rows, lambda row: row.model)
    points = [score for row in rows for score in row.scores]
    scale = (float(min(LOWEST, *points)), float(max(HIGHEST, *points)))
    lines = [
        {
            "model": model,
            "num_answers": len(mine),
            "num_prompts": len({row.prompt for row in mine}),
            "criteria": {
                name: _over_prompts(mine, lambda row, place=place: row.scores[place], scale)  # type: ignore[misc]
                for place, name in enumerate(rows[0].criteria)
            },
            "mean": _over_prompts(mine, lambda row: row.mean, scale),
        }
        for model, mine in by_model.items()
    ]
    lines.sort(key=lambda line: -line["mean"]["mean"])  # type: ignore[index]
    standard = against if against in by_model else str(lines[0]["model"])
    widest = scale[1] - scale[0]
    gaps = [
        _gap(by_model[str(line["model"])], by_model[standard], (-widest, widest))
        for line in lines
        if line["model"] != standard
    ]
    return {
        "set": rows[0].set,
        "judge": rows[0].judge,
        "criteria": list(rows[0].criteria),
        "models": lines,
        "against": standard,
        "differences": gaps,
    }


def _over_prompts(rows: Iterable[ScoreRow], value: Callable[[ScoreRow], float], scale: Bounds) -> Figure:
    """Mean over answers, with the interval over prompts."""
    groups = _grouped(rows, lambda row: row.prompt).values()
    sums = np.asarray([sum(map(value, group)) for group in groups], dtype=float)
    return ratio_figure(sums, np.asarray([len(group) for group in groups], dtype=float), scale)


def _gap(rows: Sequence[ScoreRow], standard: Sequence[ScoreRow], scale: Bounds) -> dict[str, Any]:
    """Mean over criteria, over the prompts that both answered: this model minus the standard."""
    mine, theirs = (_grouped(each, lambda row: row.prompt) for each in (rows, standard))
    shared = [prompt for prompt in mine if prompt in theirs]
    gaps = [
        float(np.mean([row.mean for row in mine[prompt]]) - np.mean([row.mean for row in theirs[prompt]]))
        for prompt in shared
    ]
    found: dict[str, Any] = {"model": rows[0].model, "minus": standard[0].model, "num_prompts": len(shared)}
    return {**found, **mean_figure(gaps, scale)} if gaps else found


def _model_of(row: Row) -> tuple[str, str]:
    """(set, model)"""
    if row.get("model"):
        return str(row.get("set", "")), str(row["model"])
    group, _, model = str(row.get("source", "")).rpartition("/")
    if not model:
        raise DataError("names no model", expected="key `model`, or a `source` whose last part is the model")
    return group, model


def _points(row: ScoreRow, name: str) -> float | None:
    if name == WHOLE:
        return round(row.mean, 6)
    return row.scores[row.criteria.index(name)] if name in row.criteria else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _grouped(rows: Iterable[ScoreRow], key: Callable[[ScoreRow], Hashable]) -> dict[Any, list[ScoreRow]]:
    groups: dict[Any, list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
