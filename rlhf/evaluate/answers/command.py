"""`rlhf evaluate generation`: answers of models to the same prompts, measured, with a page that shows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from rlhf.artifacts.files import write_json, write_text
from rlhf.curate.sample.options import Asking
from rlhf.curate.sample.sources import model_folder
from rlhf.evaluate.answers.asking import Answered, ask
from rlhf.evaluate.answers.measures import MEASURES, differences, measure
from rlhf.evaluate.answers.page import render_page
from rlhf.evaluate.answers.perplexity import Surprise, surprise
from rlhf.evaluate.report_folder import report_folder


def evaluate_generation(asking: Asking, out: Path, *, shown: int = 60) -> dict[str, Any]:
    """Writes out/generation.json, generation.html and answers.jsonl, prints a summary, and returns the report.

    Differences are those of each model to the first one, on the same prompts.

    Raises: ConfigError, DataError or ModelError before or while answers are drawn; those drawn are kept.
    """
    report_folder(out)
    answered = ask(asking, out)
    report = generation_report(answered, surprises(asking, answered))
    write_json(out / "generation.json", report)
    write_text(out / "generation.html", render_page(report, answered, shown))
    sys.stdout.write(f"{summary(report)}\n{out / 'generation.html'}\n")
    return report


def surprises(asking: Asking, answered: Answered) -> list[Surprise | None]:
    """Each model's surprise at the references; None where the prompts have none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = answered.decoding["dtype"]
    return [surprise(model_folder(path), answered.prompts, dtype=dtype, device=device) for path in asking.models]


def generation_report(answered: Answered, surprised: list[Surprise | None]) -> dict[str, Any]:
    """Figures of every model, and of each minus the first."""
    measured = [measure(each.answers, each.finished) for each in answered.sets]
    report: dict[str, Any] = {**answered.about(), "measures": {}, "differences": {}, "references": {}}
    for each, found, known in zip(answered.sets, measured, surprised, strict=True):
        report["measures"][each.name] = found.figures()
        if known is not None:
            report["references"][each.name] = known.as_dict()
    first = answered.sets[0].name
    for each, found, known in zip(answered.sets[1:], measured[1:], surprised[1:], strict=True):
        gaps: dict[str, Any] = dict(differences(measured[0], found))
        if known is not None and surprised[0] is not None:
            gaps["nats_a_character"] = known.minus(surprised[0])
        report["differences"][f"{each.name} minus {first}"] = gaps
    return report


def summary(report: dict[str, Any]) -> str:
    """The measures as lines of a terminal, a column a model."""
    names = list(report["measures"])
    width = max(12, *(len(name) for name in names))
    lines = [" " * 18 + "".join(f"{name:>{width + 2}}" for name in names)]
    for key, known in MEASURES.items():
        values = (known.written(report["measures"][name][key]["mean"]) for name in names)
        lines.append(f"{known.title:<18}" + "".join(f"{value:>{width + 2}}" for value in values))
    if report["references"]:
        values = (f"{report['references'][name]['perplexity']['mean']:.2f}" for name in names)
        lines.append(f"{'perplexity':<18}" + "".join(f"{value:>{width + 2}}" for value in values))
    return "\n".join(lines)
