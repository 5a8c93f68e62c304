"""The page: its sections in order, and what the templates beside this module fill them with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf.artifacts.files import short_hash
from rlhf.config.stages import CHAIN, STAGES
from rlhf.html.templates import render
from rlhf.html.texts import Texts
from rlhf.html.words import Words
from rlhf.runs.project import Parent, Project, parents_of, sources_of, trained_and_held_out
from rlhf.runs.record import RunRecord, differences
from rlhf.runs.report.answers import answers_in_training, answers_of_project
from rlhf.runs.report.stages import stage_values
from rlhf.runs.report.verdict import Statement, headline, missing, missing_in, note_words, stage_finding, weak_points

TEXTS = Texts("rlhf.runs")
MANY_RUNS = 6  # with more, a page shows the first curves of each run only


def render_project(project: Project) -> str:
    """The page of all runs and comparisons of a project."""
    furthest = project.runs[-1].stage  # the headline reports the findings of this stage's runs
    others = [(run, stage_finding(run)) for run in project.runs if run.stage != furthest]
    return _render(
        project,
        Words("RLHF 프로젝트 보고서", "RLHF project report"),
        ("summary", "chain", "data", *_stage_sections(project), "comparison", "answers", "settings"),
        single=False,
        verdict=headline(project),
        others=others,
        missing=missing(project),
        answers=answers_of_project(project),
    )


def render_run(run: RunRecord) -> str:
    """The page of one run."""
    answers = () if run.stage == "reward" else ("answers",)  # a reward model gives none
    return _render(
        Project([run.path], [run], [], []),
        TEXTS.named("stage", run.stage),
        ("summary", run.stage, *answers, "chain", "data", "settings"),
        single=True,
        verdict=stage_finding(run),
        others=[],
        missing=missing_in(run),
        answers=answers_in_training(run),
    )


def _render(project: Project, title: Words, sections: Sequence[str], *, verdict: Statement, **values: Any) -> str:
    brief = len(project.runs) > MANY_RUNS
    return render(
        "runs/report/page.html.j2",
        title=title,
        names=", ".join(map(str, project.folders)),
        sections=sections,
        project=project,
        verdict=verdict,
        weak_points=weak_points(project),
        outside=_outside(project),
        parents_of=parents_of,
        uses=_uses(project),
        stages={stage: [stage_values(run, brief=brief) for run in project.of_stage(stage)] for stage in STAGES},
        note_words=note_words,
        differences=differences,
        named=TEXTS.named,
        short_hash=short_hash,
        **values,
    )


def _stage_sections(project: Project) -> list[str]:
    """The stages of the chain, run or not, and the others of which there is a run."""
    return [stage for stage in STAGES if stage in CHAIN or project.of_stage(stage)]


def _outside(project: Project) -> list[Parent]:
    """Models that no run here made, each once."""
    parents = (parent for run in project.runs for parent in parents_of(run, project.runs) if parent.run is None)
    return list({(parent.path, parent.sha256): parent for parent in parents}.values())


def _uses(project: Project) -> list[dict[str, Any]]:
    """Every use of a data source. `first`: whether it is the first of its source; `shared`: trained and measured on."""
    return [
        {"use": use, "first": number == 0, "shared": trained_and_held_out(uses)}
        for uses in sources_of(project.runs)
        for number, use in enumerate(uses)
    ]
