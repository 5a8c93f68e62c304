"""The blind page on which people compare two models' answers, K = 2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlhf.artifacts.files import write_text
from rlhf.curate.answer_rows import prompt_value
from rlhf.curate.label.command import Labelling, LabelOptions
from rlhf.errors import DataError
from rlhf.evaluate.answers.generation import EMPTY, Generations
from rlhf.evaluate.compare.views import equal_answers


def write_pairs(generations: Generations, file: Path) -> int:
    """Writes the pairs to label, a row per prompt whose answers differ, and returns how many there are.

    Raises: DataError when there is none.
    """
    lines = []
    for number, (prompt, equal) in enumerate(zip(generations.prompts, equal_answers(generations), strict=True)):
        if not equal:
            row = {
                "id": str(number),
                "prompt": prompt_value(prompt.messages),
                "responses": [each.answers[number][0].strip() or EMPTY for each in generations.sets],
                "models": [each.name for each in generations.sets],
                "source": prompt.source,
            }
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if not lines:
        raise DataError("both models gave the same answers throughout", fix="there is nothing to label")
    write_text(file, "".join(lines))
    return len(lines)


def label(generations: Generations, options: LabelOptions) -> Sequence[Path]:
    """Serves the page until Ctrl-C; the file of labels, or nothing where nobody labelled.

    One judgement per row: people who label the same row all count.
    """
    write_pairs(generations, Path(options.rows))
    labelling = Labelling(options)
    labelling.run()
    labelled = any(judgement.verdict != "skip" for judgement in labelling.store.judgements())
    labelling.store.close()
    return [options.out] if labelled else []
