"""`rlhf evaluate compare`: is the second model better than the first?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_json, write_text
from rlhf.curate.judge.criteria import CriteriaSet
from rlhf.curate.judge.pairwise import JudgeSettings
from rlhf.curate.label.command import LabelOptions
from rlhf.curate.sample.options import Asking
from rlhf.data.readers import locate
from rlhf.evaluate.answers.asking import Answered, ask
from rlhf.evaluate.answers.command import generation_report, surprises
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.compare.label_page import label
from rlhf.evaluate.compare.page import render_page
from rlhf.evaluate.compare.statistics import Verdicts, comparison_section, text_sentences
from rlhf.evaluate.compare.views import judge_verdicts, label_verdicts, reward_folder, reward_verdicts
from rlhf.evaluate.intervals import excludes_zero
from rlhf.evaluate.judging import JudgeName, OpenEndpoint, judge_answers
from rlhf.evaluate.report_folder import report_folder


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """Who judges, by what, and how they are asked; `weigh` tries token probabilities first."""

    judges: Sequence[JudgeName]
    opened: OpenEndpoint
    criteria: CriteriaSet
    settings: JudgeSettings
    weigh: bool


def evaluate_compare(
    asking: Asking,
    out: Path,
    *,
    panel: JudgePanel | None = None,
    reward: str = "",
    labels: str = "",
    page: LabelOptions | None = None,
    shown: int = 60,
) -> dict[str, Any]:
    """Compares the second model of `asking` with the first; writes out/compare.json and .html, returns the report.

    Args:
        panel: judges to ask, reward: a reward model's run, labels: a file of people's labels, page: the page to open
            for people now. Whoever spoke is reported apart; people come before judges, judges before a reward model.

    Raises: what drawing, judging, scoring and reading raise; answers and replies so far are kept in `out`.
    """
    report_folder(out)
    if reward:
        reward_folder(reward)
    if labels:
        locate(labels)
    answered = ask(asking, out)
    report = generation_report(answered, surprises(asking, answered))
    verdicts: list[Verdicts] = []
    if reward:
        verdicts.append(reward_verdicts(answered, reward))
    if panel is not None:
        judged = judge_answers(
            answered, panel.judges, panel.opened, panel.criteria, panel.settings,
            weigh=panel.weigh, answers_file=out / "answers.jsonl",
        )  # fmt: skip
        verdicts[:0] = [judge_verdicts(each, answered) for each in judged]
        report["judging"] = [each.report for each in judged]
    files = ([labels] if labels else []) + [str(file) for file in (label(answered, page) if page else ())]
    verdicts[:0] = [label_verdicts(file, answered) for file in files]
    report |= views(verdicts, answered, report)
    write_json(out / "compare.json", report)
    write_text(out / "compare.html", render_page(report, answered, verdicts, shown))
    sys.stdout.write(f"{summary(report)}\n{out / 'compare.html'}\n")
    return report


def views(verdicts: Sequence[Verdicts], answered: Answered, report: dict[str, Any]) -> dict[str, Any]:
    """Each view, and the sentence that heads the report: the first view's, or what the text says without one."""
    names = (answered.sets[0].name, answered.sets[1].name)
    sections = [comparison_section(each, names) for each in verdicts]
    spoken = [section for section in sections if "sentence" in section]
    if spoken:
        head = {"outcome": spoken[0]["outcome"], "sentence": spoken[0]["sentence"], "notes": spoken[0]["notes"]}
    else:
        gaps = next(iter(report["differences"].values()))
        told = [(known.title, known.korean) for name, known in MEASURES.items() if excludes_zero(gaps[name])]
        sentence = text_sentences(told, names, len(answered.prompts))
        head = {"outcome": "unknown", "sentence": sentence, "notes": []}
    return {"first": names[0], "second": names[1], **head, "views": sections}


def summary(report: dict[str, Any]) -> str:
    """Every view's sentence with its notes, then the measures that differ."""
    lines = []
    for view in report["views"] or [report]:
        if "sentence" in view:
            lines += [view["sentence"]["en"], view["sentence"]["ko"], *(f"note: {note}" for note in view["notes"])]
        else:
            lines.append(f"{view['kind']} {view['name']}: no pair could be decided")
    for gaps in report["differences"].values():
        for name, known in MEASURES.items():
            if excludes_zero(gaps[name]):
                mean, low, high = (known.signed(value) for value in gaps[name].values())
                lines.append(f"  {known.title}: {mean} [{low}, {high}]")
    return "\n".join(lines)
