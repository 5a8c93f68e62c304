"""People's rankings of the arms: the rows to label, and what the labels say of every pair."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np

from rlhf.artifacts.files import write_text
from rlhf.curate.answer_rows import prompt_value
from rlhf.data.readers import locate, read_rows
from rlhf.errors import DataError
from rlhf.evaluate.answers.generation import EMPTY, Generations
from rlhf.evaluate.arms.statistics import ArmComparison, Pair, compared
from rlhf.evaluate.compare.views import label_outcomes
from rlhf.evaluate.intervals import Floats


def write_label_rows(generations: Generations, file: Path) -> int:
    """Writes a row per prompt with the first answer of every arm, for `rlhf data label`; returns how many there are.

    Prompts to which all arms gave the same answer are left out.
    """
    lines = []
    for number, prompt in enumerate(generations.prompts):
        said = [each.answers[number][0].strip() or EMPTY for each in generations.sets]
        if len(set(said)) > 1:
            row = {
                "id": str(number),
                "prompt": prompt_value(prompt.messages),
                "responses": said,
                "models": [each.name for each in generations.sets],
                "source": prompt.source,
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(file, "".join(lines))
    return len(lines)


def vote_comparisons(labels: str, generations: Generations) -> list[ArmComparison]:
    """Every pair of arms that people ranked, as wins minus 0.5 by prompt (a tie is half a win), corrected together.

    Raises: DataError for a bad row, for one that ranks an answer which its arm did not give here, and for a file that
        ranks no two of the arms.
    """
    _require_these_answers(labels, generations)
    differences: dict[Pair, Floats] = {}
    for first, second in combinations(generations.sets, 2):
        if found := label_outcomes(labels, (first, second)):
            won = [float(np.mean(outcomes)) - 0.5 for outcomes, _ in found.values()]
            differences[first.name, second.name] = np.asarray(won)
    if not differences:
        names = ", ".join(each.name for each in generations.sets)
        raise DataError(
            f"no row ranks two of {names}",
            where=f"labels  {labels}",
            expected="rows {prompt, responses, ranks, models}",
            fix="label OUT/label.jsonl with: rlhf data label",
        )
    return compared(differences)


def _require_these_answers(labels: str, generations: Generations) -> None:
    """Refuses rankings of other answers: arms have the same names in every comparison, and new settings new answers."""
    given = {
        (repr(prompt_value(prompt.messages)), each.name): {text.strip() or EMPTY for text in each.answers[number]}
        for number, prompt in enumerate(generations.prompts)
        for each in generations.sets
    }
    names = {each.name for each in generations.sets}
    for line, row in read_rows(locate(labels)):
        if isinstance(row, DataError):
            raise row
        models, responses = row.get("models"), row.get("responses")
        if not isinstance(models, list) or not isinstance(responses, list):
            continue
        for name, text in zip(models, responses, strict=False):
            if name in names and str(text).strip() not in given.get((repr(row.get("prompt")), name), ()):
                raise DataError(
                    f"this row ranks an answer that {name} did not give to this prompt here",
                    where=f"labels  {labels}:{line}",
                    expected="prompts and answers of the label.jsonl in the same folder",
                    fix="label that file: after a change of held_out, and in another folder, the answers are others",
                )
