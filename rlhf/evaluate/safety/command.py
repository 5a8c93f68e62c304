"""`rlhf evaluate probe`: models' answers to the red-team set, with a page of every answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_text
from rlhf.curate.sample.options import SampleOptions
from rlhf.evaluate.answers.generation import Generations, generate
from rlhf.evaluate.report_folder import report_folder, write_report
from rlhf.evaluate.safety.prompts import read_red_team
from rlhf.evaluate.safety.rates import RedTeamAnswer, classify, questions_of, safety_rates


def evaluate_red_team(request: SampleOptions, out: Path) -> dict[str, Any]:
    """Samples one answer per model to each prompt of `request.prompts` (empty: the shipped set), and classifies it.

    Writes out/probe.json, probe.html, prompts.jsonl and answers.jsonl, prints a summary, and returns the report.

    Raises: DataError for a file without red-team prompts; whatever sampling raises.
    """
    report_folder(out)
    prompts = read_red_team(request.prompts)[: request.limit]
    file = out / "prompts.jsonl"
    rows = ({"prompt": prompt.text, "source": prompt.category} for prompt in prompts)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    generations = generate(replace(request, prompts=str(file), limit=None), out)
    answers = {
        each.name: [classify(prompt, texts[0]) for prompt, texts in zip(prompts, each.answers, strict=True)]
        for each in generations.sets
    }
    report = _report(generations, answers)
    write_report(out, "probe", report, "safety", questions=questions_of(answers))
    return report


def _report(generations: Generations, answers: dict[str, list[RedTeamAnswer]]) -> dict[str, Any]:
    return {
        **generations.about(),
        "rates": {name: safety_rates(found) for name, found in answers.items()},
        "answers": {
            name: [
                {
                    "id": each.prompt.id,
                    "category": each.prompt.category,
                    "prompt": each.prompt.text,
                    "answer": each.answer,
                    "reaction": each.reaction,
                    "concern": each.concern,
                }
                for each in found
            ]
            for name, found in answers.items()
        },
    }
