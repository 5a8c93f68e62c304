"""A project as one page: verdict, what weakens it and what is missing, then run by run what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rlhf.evaluate.figures import STYLE, Cell
from rlhf.html.page import document
from rlhf.runs import bilingual as say
from rlhf.runs.answers import answers_section
from rlhf.runs.bilingual import Words, both, folded, heading, paragraph, table
from rlhf.runs.listing import best_of
from rlhf.runs.project import Project, parents_of, run_folder_of, sources_of, trained_and_held_out
from rlhf.runs.record import RunRecord, differences
from rlhf.runs.sections import card_body, comparison_body, curves_body, policy_body
from rlhf.runs.verdict import SHOWN_HASH, headline, missing, stage_finding, status, weak_points

PAGE_STYLE = """
.verdict { white-space: pre-line; } .findings { list-style: none; padding: 0; max-width: none; }
.findings li { border-left: 4px solid #c3c9d1; padding: .3rem .8rem; margin: .6rem 0; }
.findings li.good { border-color: #23735a; } .findings li.bad { border-color: #b3541e; }
.findings b { display: block; }
.chain { list-style: none; padding: 0; max-width: none; counter-reset: none; }
.chain > li { border: 1px solid #d5dae0; border-radius: .5rem; padding: .6rem .9rem; margin: 0 0 1.3rem;
  position: relative; overflow-wrap: anywhere; }
.chain > li.follows::before { content: "↓"; position: absolute; top: -1.35rem; left: 1.2rem; color: #5a6473; }
.chain ul { margin: .3rem 0 0; padding-left: 1.1rem; font-size: .9rem; } .chain p { margin: .1rem 0; }
.chain .path { font-size: .8rem; }
.absent { border: 1px dashed #9aa4b1; border-radius: .4rem; padding: .5rem .8rem; color: #5a6473; }
code { overflow-wrap: anywhere; font-size: .85em; } .where { display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  padding: 0; list-style: none; font-size: .9rem; max-width: none; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); gap: 0 1.5rem; }
.curves > * { min-width: 0; } .drawn svg { width: 9rem; height: 1.1rem; margin: 0; }
@media (max-width: 40rem) { .drawn { display: none; } .findings, .chain { font-size: .95rem; } }
"""


def render_project(project: Project) -> str:
    """The whole page."""
    names = ", ".join(str(folder) for folder in project.folders)
    title = Words("RLHF 프로젝트 보고서", "RLHF project report")
    parts = [
        ("summary", Words("요약", "Summary"), _summary(project)),
        ("chain", Words("실행의 흐름", "The chain of runs"), _chain(project)),
        ("data", Words("데이터", "Data"), _data(project)),
        *((stage, say.STAGES[stage], _stage(project, stage)) for stage in say.STAGES),
        ("comparison", Words("두 모델의 비교", "Comparison"), comparison_body(project)),
        ("answers", Words("답변 나란히 보기", "Answers side by side"), answers_section(project)),
        ("settings", Words("설정과 패키지", "Settings and packages"), _settings(project)),
    ]
    where = "".join(f'<li><a href="#{anchor}">{both(words)}</a></li>' for anchor, words, _ in parts)
    body = "".join(f"{heading(2, words, anchor)}{text}" for anchor, words, text in parts)
    main = f'<main><h1>{both(title)}</h1><p class="path">{escape(names)}</p><ul class="where">{where}</ul>{body}</main>'
    return document(f"RLHF: {names}", say.SWITCH + main, STYLE + say.STYLE + PAGE_STYLE)


def absent(words: Words) -> str:
    return paragraph(words, "absent")


def _summary(project: Project) -> str:
    found = headline(project)
    weak, told = weak_points(project), project.runs[-1].stage  # the headline has told of this stage's runs
    caveats = "".join(f"<li>{both(words)}</li>" for words in weak)
    doubt = paragraph(Words("이 판정을 약하게 하는 점:", "What weakens this verdict:")) + f"<ul>{caveats}</ul>"
    results = "".join(
        f'<li class="{each.tone}"><b>{escape(run.path.name)}: {both(say.STAGES[run.stage])}</b>{both(each.words)}</li>'
        for run, each in ((run, stage_finding(run)) for run in project.runs if run.stage != told)
    )
    return (
        f'<p class="verdict{" good" if found.tone == "good" else ""}">{both(found.words)}</p>'
        f'{doubt if weak else ""}<ul class="findings">{results}</ul>{_missing(project)}'
    )


def _missing(project: Project) -> str:
    rows = missing(project)
    lines = "".join(
        f"<li>{both(each.words)}{f' <code>{escape(each.command)}</code>' if each.command else ''}</li>" for each in rows
    )
    lines += "".join(f"<li>{escape(str(path))}: {escape(reason)}</li>" for path, reason in project.unread)
    if not lines:
        return paragraph(Words("빠진 것이 없습니다.", "Nothing is missing."))
    return heading(3, Words("없는 것", "What is missing")) + f'<ul class="missing">{lines}</ul>'


def _chain(project: Project) -> str:
    """Models that no run here made, then every run with the models it started from."""
    outside = {
        (parent.path, parent.sha256): parent.stage
        for run in project.runs
        for parent in parents_of(run, project.runs)
        if parent.run is None
    }
    items = [_outside(path, digest, stage) for (path, digest), stage in outside.items()]
    above: object = next(reversed(outside), None)
    for run in project.runs:
        items.append(_link_of_chain(run, project, above))
        above = run
    note = Words(
        "해시는 각 실행이 시작할 때 부모 모델에서 계산해 남긴 값이며(manifest.json), 여기서 다시 계산하지 않았습니다.",
        "Hashes are those each run took of its parents when it began (manifest.json), not computed again here.",
    )
    return f'<ol class="chain">{"".join(items)}</ol>{paragraph(note, "note")}'


def _outside(path: str, digest: str, stage: str) -> str:
    """A model that no run here made."""
    known = stage in say.STAGES
    what = Words(f"여기 없는 실행({stage})의 모델", f"of a run ({stage}) that is not here")
    told = what if known else Words("이 프로젝트 밖에서 온 모델", "a model from outside")
    shown = f"{escape(path)} <code>{escape(digest[:SHOWN_HASH])}</code>" if digest else escape(path)
    return f'<li><b>{escape(_short(path))}</b><p>{both(told)}</p><p class="path">{shown}</p></li>'


def _link_of_chain(run: RunRecord, project: Project, above: object) -> str:
    """A run in its box, with an arrow from the box above where it started from that."""
    best = best_of(run.stage, run.metrics)
    step = max(int(run.state.get("step", 0)), int(run.metrics[-1]["step"]) if run.metrics else 0)
    known = say.STATUSES.get(status(run), Words(status(run), status(run)))
    reached = f", {best.metric} {best.value:.4g} @ {best.step:,}" if best else ""
    what = Words(f"{known.ko}, {step:,}스텝{reached}", f"{known.en}, {step:,} steps{reached}")
    lines = []
    parents = parents_of(run, project.runs)
    follows = any(above in (parent.run, (parent.path, parent.sha256)) for parent in parents if above is not None)
    for parent in parents:
        roles = ", ".join(parent.roles)
        name = escape(parent.run.path.name if parent.run else _short(parent.path))
        link = f'<a href="#{parent.run.stage}">{name}</a>' if parent.run else name
        digest = f" <code>{escape(parent.sha256[:SHOWN_HASH])}</code>" if parent.sha256 else ""
        lines.append(f"<li>{escape(roles)} ← <b>{link}</b>{digest}</li>")
    if not lines:
        lines = [f"<li>{both(Words('부모 모델이 기록되지 않았습니다.', 'No parent is recorded.'))}</li>"]
    return (
        f'<li class="{"follows" if follows else ""}"><a href="#{run.stage}"><b>{escape(run.path.name)}</b></a>'
        f"<p>{both(say.STAGES[run.stage])}</p>"
        f'<p>{both(what)}</p><ul>{"".join(lines)}</ul><p class="path">{escape(str(run.path))}</p></li>'
    )


def _short(path: str) -> str:
    return run_folder_of(path).name or path


def _data(project: Project) -> str:
    """A row a use of a source by a run; files with the same hash stand together."""
    rows: list[Sequence[Words | str]] = []
    for uses in sources_of(project.runs):
        mark = (
            Words(" (학습과 평가에 함께 쓰임)", " (trained on and measured on)") if trained_and_held_out(uses) else None
        )
        for number, use in enumerate(uses):
            report = use.report
            name = (
                Cell(f"<b>{escape(str(report.get('name', '')))}</b>{both(mark) if mark else ''}") if not number else ""
            )
            lost = {key: int(report.get(f"num_{key}", 0)) for key in ("skipped", "tied", "converted")}
            rows.append(
                (
                    name,
                    f"{use.run.path.name}: {report.get('role', '')}",
                    f"{report.get('num_kept', 0):,} / {report.get('num_rows', 0):,}",
                    ", ".join(f"{key} {count:,}" for key, count in lost.items() if count) or "0",
                    str(report.get("format", "")),
                    Cell(f"<code>{escape(str(report.get('sha256', ''))[:SHOWN_HASH])}</code>"),
                )
            )
    if not rows:
        return absent(Words("manifest.json에 기록된 데이터가 없습니다.", "No manifest.json records any data."))
    head = (
        Words("데이터", "source"),
        Words("쓴 실행과 용도", "used by, as"),
        Words("쓴 행 / 전체", "kept / rows"),
        Words("빠지거나 바뀐 행", "skipped, tied, converted"),
        Words("형식", "format"),
        "sha256",
    )
    return table(head, rows)


def _stage(project: Project, stage: str) -> str:
    runs = project.of_stage(stage)
    if not runs:
        return absent(Words("이 단계의 실행이 없습니다.", "There is no run of this stage."))
    parts = []
    for run in runs:
        if len(runs) > 1:
            parts.append(heading(3, Words(run.path.name, run.path.name)))
        parts.append(paragraph(stage_finding(run).words))
        parts.append({"sft": "", "reward": card_body(run), "ppo": policy_body(run)}[stage])
        parts.append(curves_body(run, brief=len(project.runs) > 6))
    return "".join(parts)


def _settings(project: Project) -> str:
    parts = []
    for run in project.runs:
        changed = differences(run)
        head = (Words("설정", "key"), Words("값", "value"), Words("기본값", "default"))
        body = table(head, changed) if changed else paragraph(Words("모두 기본값입니다.", "All at their defaults."))
        settings = run.manifest.get("settings", {})
        packages = ", ".join(f"{name} {version}" for name, version in run.manifest.get("packages", {}).items())
        if settings:
            packages = f"ranks {settings.get('world_size', 1)}, ZeRO {settings.get('zero_stage', 0)}; {packages}"
        body += f'<p class="path">{escape(packages)}</p>' if packages else ""
        title = Words(f"{run.path.name}: 기본값과 다른 설정", f"{run.path.name}: keys not at their default")
        parts.append(folded(title, body))
    return "".join(parts)
