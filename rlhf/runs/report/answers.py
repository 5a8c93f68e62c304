"""Answers side by side: of the model PPO started from and of PPO, or of one run early and late in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rlhf.html.words import Words, same
from rlhf.runs.project import ComparisonFolder, Project, starting_point
from rlhf.runs.record import Row, RunRecord

SHOWN = 6  # prompts of a comparison or a run
PROMPTS_PER_SOURCE = 3  # of the page of one run


class Box(NamedTuple):
    """An answer; `other` is what its words are compared with. `text` is None where none was logged."""

    name: Words
    text: str | None
    other: str | None = None
    tags: Sequence[tuple[Words, str]] = ()


class Pair(NamedTuple):
    """A prompt and the answers to it."""

    asked: str
    boxes: list[Box]
    source: str = ""


class Group(NamedTuple):
    """Prompts under one heading."""

    title: Words
    note: Words | None
    pairs: list[Pair]


def answers_of_project(project: Project) -> list[Group]:
    """Every comparison's first prompts, then every PPO run's logged prompts; SFT's own where there is no PPO."""
    groups = [_compared(each) for each in project.comparisons if each.answers]
    policies = project.of_stage("ppo")
    groups += [_logged(run, starting_point(run, project)) for run in policies]
    if not policies:
        groups += [_logged(None, run) for run in project.of_stage("sft")]
    return [group for group in groups if group.pairs]


def answers_in_training(run: RunRecord) -> list[Group]:
    """For the first prompts of each source, the first answer logged and the last."""
    by_source: dict[str, dict[str, list[Row]]] = {}
    for row in run.samples:
        by_source.setdefault(row.get("source", ""), {}).setdefault(row["prompt"], []).append(row)
    groups = []
    for source, prompts in sorted(by_source.items()):
        shown = list(prompts.items())[:PROMPTS_PER_SOURCE]
        groups.append(Group(same(source), None, [Pair(prompt, _first_and_last(rows)) for prompt, rows in shown]))
    return groups


def _first_and_last(rows: Sequence[Row]) -> list[Box]:
    first, last = rows[0], rows[-1]
    if first["step"] == last["step"]:
        return [_box("", first)]
    return [_box("", first), _box("", last, other=str(first["answer"]))]


def _compared(comparison: ComparisonFolder) -> Group:
    """The same prompts under the same decoding; the words in which the second differs are marked."""
    report, size = comparison.report, int(comparison.report.get("answers_per_prompt", 1))
    pairs = []
    for row in comparison.answers[:SHOWN]:
        first, second = row["responses"][0], row["responses"][size]
        boxes = [Box(same(str(report["first"])), first), Box(same(str(report["second"])), second, first)]
        pairs.append(Pair(prompt_text(row["prompt"]), boxes, str(row.get("source", ""))))
    note = Words(
        "프롬프트 {all:,}개 중 앞의 {shown}개. 다른 모델의 답변과 다른 단어를 표시했습니다.",
        "The first {shown} of {all:,} prompts. Marked: words the other model did not say there.",
    ).format(all=len(comparison.answers), shown=len(pairs))
    title = Words("비교 {}의 답변", "Answers of comparison {}").format(comparison.path.name)
    return Group(title, note, pairs)


def _logged(policy: RunRecord | None, start: RunRecord | None) -> Group:
    """The last logged answers of stage 1 and PPO to held-out prompts, first to those that both answered."""
    after = _last_answers(policy.samples) if policy else {}
    before = _last_answers(start.samples) if start else {}
    prompts = [prompt for prompt in after if prompt in before]
    prompts += [prompt for prompt in (*after, *before) if prompt not in prompts]
    pairs = []
    for prompt in dict.fromkeys(prompts[:SHOWN]):
        boxes = [_box(start.name if start else "SFT", before.get(prompt), missing="SFT")]
        if policy is not None:
            boxes.append(_box(policy.name, after.get(prompt), missing="PPO"))
        source = str((after.get(prompt) or before.get(prompt) or {}).get("source", ""))
        pairs.append(Pair(prompt, boxes, source))
    names = " ↔ ".join(run.name for run in (start, policy) if run is not None)
    note = Words(
        "학습 중에 기록한 평가 프롬프트의 마지막 답변입니다. 단계마다 기록한 프롬프트가 다를 수 있습니다.",
        "The last answers to held-out prompts that were logged in training; the stages may have logged other prompts.",
    )
    return Group(Words("학습 중의 답변: {}", "Answers logged in training: {}").format(names), note, pairs)


def _last_answers(samples: Sequence[Row]) -> dict[str, Row]:
    """The first answer to each prompt at the last step that logged it."""
    found: dict[str, Row] = {}
    for row in samples:
        known = found.get(row["prompt"])
        if known is None or row["step"] > known["step"]:
            found[row["prompt"]] = row
    return found


def _box(name: str, row: Row | None, *, other: str | None = None, missing: str = "") -> Box:
    if row is None:
        return Box(same(missing), None)
    tags = [(same(f"{row['score']:+.2f}"), "")] if "score" in row else []
    tags += [] if row.get("finished", True) else [(Words("EOS 없음", "no EOS"), "bad")]
    step = Words("{}{:,}스텝", "{}step {:,}").format(f"{name}, " if name else "", row["step"])
    return Box(step, str(row["answer"]), other, tags)


def prompt_text(prompt: Any) -> str:
    """A prompt of answers.jsonl: text, or the turns of a conversation."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(turn.get("content", "")) for turn in prompt)
