"""The blind page on which people compare two models' answers, K = 2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.artifacts.files import write_text
from rlhf.curate.answer_rows import prompt_value
from rlhf.errors import DataError
from rlhf.evaluate.answers.generation import EMPTY, Generations
from rlhf.evaluate.compare.views import equal_answers


@dataclass(frozen=True, slots=True)
class LabelPage:
    """Address and annotators of the page, as in `rlhf data label`."""

    host: str = "127.0.0.1"
    port: int = 7861
    people: tuple[str, ...] = ()
    overlap: float = 0.2


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


def label(generations: Generations, out: Path, page: LabelPage) -> Sequence[Path]:
    """Serves the page until Ctrl-C; the file of labels, or nothing where nobody labelled.

    The file has a row per judgement, so that two people who label the same pair both count.
    """
    from rlhf.curate.label.command import Labelling, LabelOptions

    write_pairs(generations, out / "pairs.jsonl")
    options = LabelOptions(
        rows=str(out / "pairs.jsonl"),
        out=out / "labels.jsonl",
        people=page.people,
        overlap=page.overlap,
        merge="none",
        host=page.host,
        port=page.port,
    )
    labelling = Labelling(options)
    labelling.run()
    labelled = any(judgement.verdict != "skip" for judgement in labelling.store.judgements())
    labelling.store.close()
    return [options.out] if labelled else []
