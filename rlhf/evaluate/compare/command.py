"""`rlhf evaluate compare`: is the second model better than the first?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.config.flag_values import Dtype
from rlhf.curate.label.command import LabelOptions
from rlhf.curate.sample.options import SampleOptions
from rlhf.data.readers import locate
from rlhf.evaluate.answers.command import generation_report, reference_likelihoods
from rlhf.evaluate.answers.generation import Generations, generate
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.compare.label_page import label
from rlhf.evaluate.compare.statistics import TOO_MANY, Verdicts, comparison_section, text_words
from rlhf.evaluate.compare.views import judge_verdicts, label_verdicts, reward_folder, reward_verdicts
from rlhf.evaluate.geval.judging import JudgePanel, judge_answers
from rlhf.evaluate.intervals import excludes_zero
from rlhf.evaluate.report_folder import report_folder, write_report
from rlhf.html.words import Words


def evaluate_compare(
    request: SampleOptions,
    out: Path,
    *,
    panel: JudgePanel | None = None,
    reward: str = "",
    reward_dtype: Dtype = "auto",
    labels: str = "",
    page: LabelOptions | None = None,
    shown: int = 60,
) -> dict[str, Any]:
    """Compares the second model of `request` with the first; writes out/compare.json and .html, returns the report.

    Args:
        panel: judges to ask.
        reward: a reward model's run.
        reward_dtype: of its weights; auto is that of the folder on a GPU, float32 on a CPU.
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
        verdicts.append(reward_verdicts(generations, reward, reward_dtype))
    if panel is not None:
        judged = judge_answers(generations, panel, out / "answers.jsonl")
        verdicts[:0] = [judge_verdicts(each, generations) for each in judged]
        report["judging"] = [each.report for each in judged]
    files = ([labels] if labels else []) + [str(file) for file in (label(generations, page) if page else ())]
    verdicts[:0] = [label_verdicts(file, generations) for file in files]
    report |= views(verdicts, generations, report)
    write_report(out, "compare", report, "compare", **page_values(generations, verdicts, shown))
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


def page_values(generations: Generations, verdicts: Sequence[Verdicts], shown: int) -> dict[str, Any]:
    """What the page shows beside the report; the first verdicts that go prompt by prompt colour the answers."""
    return {
        "measures": MEASURES,
        "too_many": TOO_MANY,
        "generations": generations,
        "shown": shown,
        "decider": next((each for each in verdicts if each.kind != "people"), None),
    }
