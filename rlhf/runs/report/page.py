"""The page: its sections in order, and what the templates beside this module fill them with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rlhf.artifacts.files import short_hash
from rlhf.html.templates import render
from rlhf.html.texts import Texts
from rlhf.html.words import Words, same
from rlhf.runs.project import Parent, Project, parents_of, sources_of, trained_and_held_out
from rlhf.runs.record import RunRecord, differences
from rlhf.runs.report.answers import answers_in_training, answers_of_project
from rlhf.runs.report.stages import comparison_values, stage_values
from rlhf.runs.report.verdict import Statement, headline, missing, missing_in, stage_finding, weak_points

TEXTS = Texts("rlhf.runs")
STAGE_SECTIONS = ("sft", "reward", "ppo")
TITLES = {
    "summary": Words("요약", "Summary"),
    "chain": Words("실행의 연결 관계", "The chain of runs"),
    "data": Words("데이터", "Data"),
    **{stage: TEXTS.named("stage", stage) for stage in STAGE_SECTIONS},
    "comparison": Words("두 모델의 비교", "Comparison"),
    "answers": Words("답변 비교", "Answers side by side"),
    "settings": Words("설정과 패키지", "Settings and packages"),
}
MANY_RUNS = 6  # with more, a page shows the first curves of each run only


class Link(NamedTuple):
    """A run with the models it started from. `follows`: whether one of them stands just above it on the page."""

    run: RunRecord
    parents: list[Parent]
    follows: bool


def render_project(project: Project) -> str:
    """The page of all runs and comparisons of a project."""
    furthest = project.runs[-1].stage  # the headline reports the findings of this stage's runs
    others = [(run, stage_finding(run)) for run in project.runs if run.stage != furthest]
    return _render(
        project,
        Words("RLHF 프로젝트 보고서", "RLHF project report"),
        ("summary", "chain", "data", *STAGE_SECTIONS, "comparison", "answers", "settings"),
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
        titles=TITLES,
        project=project,
        verdict=verdict,
        weak_points=weak_points(project),
        outside=_outside(project),
        chain=_chain(project),
        uses=_uses(project),
        stages={stage: [stage_values(run, brief=brief) for run in project.of_stage(stage)] for stage in STAGE_SECTIONS},
        comparisons=[comparison_values(each) for each in project.comparisons],
        settings=[_settings(run) for run in project.runs],
        named=TEXTS.named,
        short_hash=short_hash,
        **values,
    )


def _outside(project: Project) -> list[Parent]:
    """Models that no run here made, each once."""
    parents = (parent for run in project.runs for parent in parents_of(run, project.runs) if parent.run is None)
    return list({(parent.path, parent.sha256): parent for parent in parents}.values())


def _chain(project: Project) -> Iterable[Link]:
    """Every run in order. The last model from outside stands above the first run."""
    above: object = next(((parent.path, parent.sha256) for parent in reversed(_outside(project))), None)
    for run in project.runs:
        parents = parents_of(run, project.runs)
        yield Link(run, parents, above is not None and any(above in (each.run, each[1:3]) for each in parents))
        above = run


def _uses(project: Project) -> list[dict[str, Any]]:
    """Every use of a data source. `first`: whether it is the first of its source; `shared`: trained and measured on."""
    return [
        {"use": use, "first": number == 0, "shared": trained_and_held_out(uses)}
        for uses in sources_of(project.runs)
        for number, use in enumerate(uses)
    ]


def _settings(run: RunRecord) -> dict[str, Any]:
    """Keys that are not at their default, and where the run ran."""
    settings = run.manifest.get("settings", {})
    packages = ", ".join(f"{name} {version}" for name, version in run.manifest.get("packages", {}).items())
    if settings:
        packages = f"ranks {settings.get('world_size', 1)}, ZeRO {settings.get('zero_stage', 0)}; {packages}"
    return {"name": same(run.name), "changed": differences(run), "packages": packages}
