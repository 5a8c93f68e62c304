"""`rlhf evaluate compare`: is the second model better than the first?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.curate.judge.criteria import CriteriaSet
from rlhf.curate.judge.pairwise import JudgeSettings
from rlhf.curate.label.command import LabelOptions
from rlhf.curate.sample.options import SampleOptions
from rlhf.data.readers import locate
from rlhf.evaluate.answers.command import generation_report, reference_likelihoods
from rlhf.evaluate.answers.generation import Generations, generate
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.compare.label_page import label
from rlhf.evaluate.compare.page import render_page
from rlhf.evaluate.compare.sentences import text_words
from rlhf.evaluate.compare.statistics import Verdicts, comparison_section
from rlhf.evaluate.compare.views import judge_verdicts, label_verdicts, reward_folder, reward_verdicts
from rlhf.evaluate.geval.judging import JudgeName, OpenEndpoint, judge_answers
from rlhf.evaluate.intervals import excludes_zero
from rlhf.evaluate.report_folder import report_folder, write_report
from rlhf.html.words import Words


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """The judges, their criteria and settings; `weigh` tries token probabilities first."""

    judges: Sequence[JudgeName]
    opened: OpenEndpoint
    criteria: CriteriaSet
    settings: JudgeSettings
    weigh: bool


def evaluate_compare(
    request: SampleOptions,
    out: Path,
    *,
    panel: JudgePanel | None = None,
    reward: str = "",
    labels: str = "",
    page: LabelOptions | None = None,
    shown: int = 60,
) -> dict[str, Any]:
    """Compares the second model of `request` with the first; writes out/compare.json and .html, returns the report.

    Args:
        panel: judges to ask.
        reward: a reward model's run.
        labels: a file of people's labels.
        page: open this page for people now.

    Each source is reported separately: people before judges, judges before the reward model.

    Raises: whatever sampling, judging, scoring and reading raise; answers and replies so far are kept in `out`.
    """
    report_folder(out)
    if reward:
        reward_folder(reward)
    if labels:
        locate(labels)
    generations = generate(request, out)
    report = generation_report(generations, reference_likelihoods(request, generations))
    verdicts: list[Verdicts] = []
    if reward:
        verdicts.append(reward_verdicts(generations, reward))
    if panel is not None:
        judged = judge_answers(
            generations, panel.judges, panel.opened, panel.criteria, panel.settings,
            weigh=panel.weigh, answers_file=out / "answers.jsonl",
        )  # fmt: skip
        verdicts[:0] = [judge_verdicts(each, generations) for each in judged]
        report["judging"] = [each.report for each in judged]
    files = ([labels] if labels else []) + [str(file) for file in (label(generations, page) if page else ())]
    verdicts[:0] = [label_verdicts(file, generations) for file in files]
    report |= views(verdicts, generations, report)
    page_text = render_page(report, generations, verdicts, shown)
    write_report(out, "compare", report, page=page_text, summary=summary(report))
    return report


def views(verdicts: Sequence[Verdicts], generations: Generations, report: dict[str, Any]) -> dict[str, Any]:
    """Each view, and the report's first sentence: that of the first view, or of the text measures without one."""
    names = (generations.sets[0].name, generations.sets[1].name)
    sections = [comparison_section(each, names) for each in verdicts]
    decided = [section for section in sections if "sentence" in section]
    if decided:
        head = {name: decided[0][name] for name in ("outcome", "sentence", "notes")}
    else:
        gaps = next(iter(report["differences"].values()))
        differing = [Words(known.korean, known.title) for name, known in MEASURES.items() if excludes_zero(gaps[name])]
        sentence = text_words(differing, names, len(generations.prompts))._asdict()
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
                mean, low, high = map(known.signed, gaps[name].values())
                lines.append(f"  {known.title}: {mean} [{low}, {high}]")
    return "\n".join(lines)
