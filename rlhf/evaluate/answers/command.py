"""`rlhf evaluate generation`: measures of several models' answers to the same prompts, and a page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sources import model_folder
from rlhf.evaluate.answers.generation import Generations, generate
from rlhf.evaluate.answers.measures import MEASURES, differences, measure
from rlhf.evaluate.answers.perplexity import ReferenceLikelihood, reference_likelihood
from rlhf.evaluate.report_folder import report_folder, write_report


def evaluate_generation(request: SampleOptions, out: Path, *, shown: int = 60) -> dict[str, Any]:
    """Writes out/generation.json, generation.html and answers.jsonl, prints a summary, and returns the report.

    Differences are each model minus the first, on the same prompts.

    Raises: ConfigError, DataError or ModelError before or during sampling; answers so far are kept.
    """
    report_folder(out)
    generations = generate(request, out)
    report = generation_report(generations, reference_likelihoods(request, generations))
    write_report(out, "generation", report, "answers", measures=MEASURES, generations=generations, shown=shown)
    return report


def reference_likelihoods(request: SampleOptions, generations: Generations) -> list[ReferenceLikelihood | None]:
    """Likelihood of the references under each model; None where the prompts have none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = generations.decoding["dtype"]
    return [
        reference_likelihood(model_folder(path), generations.prompts, dtype=dtype, device=device)
        for path in request.models
    ]


def generation_report(generations: Generations, likelihoods: list[ReferenceLikelihood | None]) -> dict[str, Any]:
    """Measures of every model, and of each minus the first."""
    measured = [measure(each.answers, each.finished) for each in generations.sets]
    report: dict[str, Any] = {**generations.about(), "measures": {}, "differences": {}, "references": {}}
    for each, found, known in zip(generations.sets, measured, likelihoods, strict=True):
        report["measures"][each.name] = found.figures()
        if known is not None:
            report["references"][each.name] = known.as_dict()
    first = generations.sets[0].name
    for each, found, known in zip(generations.sets[1:], measured[1:], likelihoods[1:], strict=True):
        gaps: dict[str, Any] = dict(differences(measured[0], found))
        if known is not None and likelihoods[0] is not None:
            gaps["nats_per_character"] = known.minus(likelihoods[0])
        report["differences"][f"{each.name} minus {first}"] = gaps
    return report
