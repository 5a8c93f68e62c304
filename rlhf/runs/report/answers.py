"""Answers side by side: of a policy and the model it started from, or of one run early and late in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rlhf.html.texts import Texts
from rlhf.html.words import Words, same
from rlhf.runs.project import ComparisonFolder, Project, starting_point
from rlhf.runs.record import Row, RunRecord

SHOWN = 6  # prompts of a comparison or a run
PROMPTS_PER_SOURCE = 3  # of the page of one run
text = Texts("rlhf.runs")


class AnswerPair(NamedTuple):
    """A prompt and the answers to it: logged rows with a `name`, whose `answer` is None where none was logged, and with
    `other`, the answer that its words are compared with."""

    asked: str
    answers: list[Row]
    source: str = ""


class AnswerGroup(NamedTuple):
    """Prompts under one heading."""

    title: Words
    note: Words
    pairs: list[AnswerPair]


def answers_of_project(project: Project) -> list[AnswerGroup]:
    """Every comparison's first prompts, then the logged prompts of every run of DPO and PPO; SFT's own where there is
    none."""
    groups = [_compared(each) for each in project.comparisons if each.answers]
    policies = [*project.of_stage("dpo"), *project.of_stage("ppo")]
    groups += [_logged(run, starting_point(run, project)) for run in policies]
    if not policies:
        groups += [_logged(None, run) for run in project.of_stage("sft")]
    return [group for group in groups if group.pairs]


def answers_in_training(run: RunRecord) -> list[AnswerGroup]:
    """For the first prompts of each source, the first answer logged and the last."""
    by_source: dict[str, dict[str, list[Row]]] = {}
    for row in run.samples:
        by_source.setdefault(row.get("source", ""), {}).setdefault(row["prompt"], []).append(row)
    groups = []
    for source, prompts in sorted(by_source.items()):
        shown = list(prompts.items())[:PROMPTS_PER_SOURCE]
        groups.append(
            AnswerGroup(same(source), same(""), [AnswerPair(prompt, _first_and_last(rows)) for prompt, rows in shown])
        )
    return groups


def _first_and_last(rows: Sequence[Row]) -> list[Row]:
    first, last = ({**row, "name": ""} for row in (rows[0], rows[-1]))
    return [first] if first["step"] == last["step"] else [first, {**last, "other": first["answer"]}]


def _compared(comparison: ComparisonFolder) -> AnswerGroup:
    """The same prompts under the same decoding; the words in which the second differs are marked."""
    report, size = comparison.report, int(comparison.report.get("answers_per_prompt", 1))
    pairs = []
    for row in comparison.answers[:SHOWN]:
        first, second = row["responses"][0], row["responses"][size]
        answers = [
            {"name": report["first"], "answer": first},
            {"name": report["second"], "answer": second, "other": first},
        ]
        pairs.append(AnswerPair(prompt_text(row["prompt"]), answers, str(row.get("source", ""))))
    note = text("answers.compared_note", all=len(comparison.answers), shown=len(pairs))
    return AnswerGroup(text("answers.compared", name=comparison.path.name), note, pairs)


def _logged(policy: RunRecord | None, start: RunRecord | None) -> AnswerGroup:
    """The last logged answers of stage 1 and a policy to held-out prompts, first to those that both answered."""
    after = _last_answers(policy.samples) if policy else {}
    before = _last_answers(start.samples) if start else {}
    prompts = [prompt for prompt in after if prompt in before]
    prompts += [prompt for prompt in (*after, *before) if prompt not in prompts]
    pairs = []
    for prompt in dict.fromkeys(prompts[:SHOWN]):
        found = [("SFT", start, before.get(prompt))] + (
            [(policy.stage.upper(), policy, after.get(prompt))] if policy else []
        )
        answers = [
            {**row, "name": run.name if run else stage} if row else {"name": stage, "answer": None}
            for stage, run, row in found
        ]
        source = str((after.get(prompt) or before.get(prompt) or {}).get("source", ""))
        pairs.append(AnswerPair(prompt, answers, source))
    names = " ↔ ".join(run.name for run in (start, policy) if run is not None)
    return AnswerGroup(text("answers.logged", names=names), text("answers.logged_note"), pairs)


def _last_answers(samples: Sequence[Row]) -> dict[str, Row]:
    """The first answer to each prompt at the last step that logged it."""
    found: dict[str, Row] = {}
    for row in samples:
        known = found.get(row["prompt"])
        if known is None or row["step"] > known["step"]:
            found[row["prompt"]] = row
    return found


def prompt_text(prompt: Any) -> str:
    """A prompt of answers.jsonl: text, or the turns of a conversation."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(turn.get("content", "")) for turn in prompt)
