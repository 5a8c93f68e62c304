"""`rlhf evaluate judge`: the G-Eval table of stored scores, or of answers judged now."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_json, write_text
from rlhf.curate.judge.criteria import CriteriaSet
from rlhf.curate.judge.pairwise import JudgeSettings
from rlhf.curate.sample.options import Asking
from rlhf.data.sources import OnBadRow
from rlhf.errors import ConfigError
from rlhf.evaluate.answers.asking import ask
from rlhf.evaluate.geval.page import csv_text, markdown, render_page, summary
from rlhf.evaluate.geval.table import geval_table, read_scores
from rlhf.evaluate.judging import JudgeName, OpenEndpoint, judge_answers
from rlhf.evaluate.report_folder import report_folder


def table_from_scores(
    scores: str, out: Path, *, against: str | None = None, on_bad_row: OnBadRow = "error", about: Any = None
) -> dict[str, Any]:
    """Writes out/geval.json, .md, .csv and .html from a file of stored scores, prints a summary, returns the table.

    Args:
        against: the model others are compared with (the best of each set where it is not there).
        about: more for the JSON, beside the table.

    Raises: DataError, naming file and line, for a file that holds no scores or a bad row.
    """
    report_folder(out)
    stored = read_scores(scores, on_bad_row)
    models = {row.model for row in stored.rows}
    if against is not None and against not in models:
        raise ConfigError(f"no model {against!r}", where="--against", expected=f"one of {', '.join(sorted(models))}")
    table = {"scores": scores, "bad_rows_skipped": len(stored.problems), **(about or {})}
    table |= geval_table(stored.rows, against)
    write_json(out / "geval.json", table)
    write_text(out / "geval.md", markdown(table))
    write_text(out / "geval.csv", csv_text(table))
    write_text(out / "geval.html", render_page(table))
    sys.stdout.write(f"{summary(table)}\n{out / 'geval.html'}\n")
    return table


def evaluate_judge(
    asking: Asking,
    judges: Sequence[JudgeName],
    opened: OpenEndpoint,
    criteria: CriteriaSet,
    settings: JudgeSettings,
    out: Path,
    *,
    weigh: bool,
    against: str | None = None,
) -> dict[str, Any]:
    """Draws answers, has them judged, writes out/scores.jsonl and the table of it; returns the table.

    Raises: ConfigError for fewer than two models; what drawing and judging raise.
    """
    if len(asking.models) < 2:
        raise ConfigError(
            "a judge compares, and there is one model", where="--model", fix="name a second one, e.g. the SFT run"
        )
    report_folder(out)
    answered = ask(asking, out)
    found = judge_answers(answered, judges, opened, criteria, settings, weigh=weigh, answers_file=out / "answers.jsonl")
    name = Path(asking.prompts.rpartition(":")[2]).stem
    lines = [json.dumps(row, ensure_ascii=False) for each in found for row in each.score_rows(answered, name)]
    write_text(out / "scores.jsonl", "".join(f"{line}\n" for line in lines))
    about = {
        **answered.about(),
        "criteria": criteria.name,
        "judging": [
            {**each.report, "rows_with_equal_answers": each.num_equal, "rows_unreadable": each.num_unreadable}
            for each in found
        ],
    }
    return table_from_scores(str(out / "scores.jsonl"), out, against=against, about=about)
