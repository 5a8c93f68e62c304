"""`rlhf evaluate judge`: the G-Eval table from stored scores, or from answers judged now."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_text
from rlhf.curate.sample.options import SampleOptions
from rlhf.data.sources import OnBadRow
from rlhf.errors import ConfigError, require_packages
from rlhf.evaluate.answers.generation import generate
from rlhf.evaluate.geval.judging import JudgePanel, judge_answers
from rlhf.evaluate.geval.table import WHOLE, geval_table, read_scores
from rlhf.evaluate.report_folder import report_folder, write_report
from rlhf.html.templates import render


def table_from_scores(
    scores: str, out: Path, *, against: str | None = None, on_bad_row: OnBadRow = "error", about: Any = None
) -> dict[str, Any]:
    """Writes out/geval.json, .md, .csv and .html from a file of stored scores, prints a summary, returns the table.

    Args:
        against: the model the others are compared with; in sets without it, the best model.
        about: further keys of the JSON report.

    Raises: DataError, naming file and line, for a file without scores or a bad row; ConfigError where several judges
        scored and the package that measures their agreement is missing.
    """
    report_folder(out)
    stored = read_scores(scores, on_bad_row)
    if len({row.judge for row in stored.rows}) > 1:
        _require_agreement()
    models = {row.model for row in stored.rows}
    if against is not None and against not in models:
        raise ConfigError(f"no model {against!r}", where="--against", expected=f"one of {', '.join(sorted(models))}")
    table = {"scores": scores, "bad_rows_skipped": len(stored.problems), **(about or {})}
    table |= geval_table(stored.rows, against)
    write_text(out / "geval.md", render("evaluate/geval/table.md.j2", report=table, whole=WHOLE))
    write_text(out / "geval.csv", csv_text(table))
    write_report(out, "geval", table, "geval", whole=WHOLE)
    return table


def _require_agreement() -> None:
    require_packages("krippendorff", extra="llm", needed_by="the agreement of several judges")


def csv_text(table: Mapping[str, Any]) -> str:
    """A line per set, judge, model and criterion."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("set", "judge", "model", "criterion", "mean", "low", "high", "num_answers", "num_prompts"))
    for part in table["parts"]:
        for line in part["models"]:
            for name, figure in [*line["criteria"].items(), (WHOLE, line["mean"])]:
                ends = (f"{figure[end]:.4f}" for end in ("mean", "low", "high"))
                counts = (line["num_answers"], line["num_prompts"])
                writer.writerow((part["set"], part["judge"], line["model"], name, *ends, *counts))
    return file.getvalue()


def evaluate_judge(
    request: SampleOptions, panel: JudgePanel, out: Path, *, against: str | None = None
) -> dict[str, Any]:
    """Samples answers, has them judged, writes out/scores.jsonl and its table; returns the table.

    Raises: ConfigError for fewer than two models; whatever sampling and judging raise.
    """
    if len(request.models) < 2:
        raise ConfigError(
            "a judge compares, and there is one model", where="--model", fix="name a second one, e.g. the SFT run"
        )
    report_folder(out)
    if len(panel.judges) > 1:
        _require_agreement()
    generations = generate(request, out)
    found = judge_answers(generations, panel, out / "answers.jsonl")
    name = Path(request.prompts.rpartition(":")[2]).stem
    lines = [json.dumps(row, ensure_ascii=False) for each in found for row in each.score_rows(generations, name)]
    write_text(out / "scores.jsonl", "".join(f"{line}\n" for line in lines))
    about = {
        **generations.about(),
        "criteria": panel.criteria.name,
        "judging": [
            {**each.report, "rows_with_equal_answers": each.num_equal, "rows_unreadable": each.num_unreadable}
            for each in found
        ],
    }
    return table_from_scores(str(out / "scores.jsonl"), out, against=against, about=about)
