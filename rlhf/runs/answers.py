"""Answers of the model PPO started from and of PPO, side by side: of comparisons, and those logged while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf.evaluate.figures import pair, said
from rlhf.runs.bilingual import Words, both, heading, paragraph
from rlhf.runs.project import ComparisonFolder, Project, starting_point
from rlhf.runs.record import Row, RunRecord

SHOWN = 6  # prompts of a comparison or a run


def answers_section(project: Project) -> str:
    """Every comparison's first prompts, then every PPO run's logged prompts; SFT's own where there is no PPO."""
    parts = [_compared(each) for each in project.comparisons if each.answers]
    parts += [_logged(run, starting_point(run, project)) for run in project.of_stage("ppo")]
    if not project.of_stage("ppo"):
        parts += [_logged(None, run) for run in project.of_stage("sft")]
    found = "".join(parts)
    nothing = Words("기록된 답변이 없습니다(samples.jsonl).", "No answer was logged (samples.jsonl).")
    return found or paragraph(nothing, "absent")


def _compared(comparison: ComparisonFolder) -> str:
    """The same prompts under the same decoding; the words in which the second differs are marked."""
    report, size = comparison.report, int(comparison.report.get("answers_a_prompt", 1))
    boxes = []
    for row in comparison.answers[:SHOWN]:
        first, second = row["responses"][0], row["responses"][size]
        texts = [said(str(report["first"]), first), said(str(report["second"]), second, other=first)]
        boxes.append(pair(prompt_text(row["prompt"]), texts, str(row.get("source", ""))))
    title = Words(f"비교 {comparison.path.name}의 답변", f"Answers of comparison {comparison.path.name}")
    note = Words(
        f"프롬프트 {len(comparison.answers):,}개 중 앞의 {len(boxes)}개. 표시된 말은 다른 모델에 없는 부분입니다.",
        f"The first {len(boxes)} of {len(comparison.answers):,} prompts. Marked: words the other did not say there.",
    )
    return heading(3, title) + paragraph(note, "note") + "".join(boxes)


def _logged(policy: RunRecord | None, start: RunRecord | None) -> str:
    """Held-out prompts with the last answers that stage 1 and PPO logged, those that both answered first."""
    after = _last_answers(policy.samples) if policy else {}
    before = _last_answers(start.samples) if start else {}
    prompts = [prompt for prompt in after if prompt in before]
    prompts += [prompt for prompt in (*after, *before) if prompt not in prompts]
    if not prompts:
        return ""
    boxes = []
    for prompt in dict.fromkeys(prompts[:SHOWN]):
        cells = [_box(start, before.get(prompt), "SFT")]
        if policy is not None:
            cells.append(_box(policy, after.get(prompt), "PPO"))
        source = str((after.get(prompt) or before.get(prompt) or {}).get("source", ""))
        boxes.append(pair(prompt, cells, source))
    names = " ↔ ".join(run.path.name for run in (start, policy) if run is not None)
    note = Words(
        "학습 중에 기록한 평가 프롬프트의 마지막 답변입니다. 단계마다 기록한 프롬프트가 다를 수 있습니다.",
        "The last answers to held-out prompts that were logged in training; the stages may have logged other prompts.",
    )
    title = Words(f"학습 중의 답변: {names}", f"Answers logged in training: {names}")
    return heading(3, title) + paragraph(note, "note") + "".join(boxes)


def _last_answers(samples: Sequence[Row]) -> dict[str, Row]:
    """The first answer to each prompt at the last step that logged it."""
    found: dict[str, Row] = {}
    for row in samples:
        known = found.get(row["prompt"])
        if known is None or row["step"] > known["step"]:
            found[row["prompt"]] = row
    return found


def _box(run: RunRecord | None, row: Row | None, kind: str) -> str:
    if row is None:
        why = Words(
            f"{kind}: 이 프롬프트의 답변이 기록되지 않았습니다.", f"{kind}: no answer to this prompt was logged."
        )
        return f'<div class="said"><small>{both(why)}</small></div>'
    tags = [(f"{row['score']:+.2f}", "")] if "score" in row else []
    tags += [] if row.get("finished", True) else [("no EOS", "bad")]
    name = run.path.name if run is not None else kind
    return said(f"{name}, step {row['step']:,}", str(row["answer"]), tags=tags)


def prompt_text(prompt: Any) -> str:
    """A prompt of answers.jsonl: text, or the turns of a conversation."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(turn.get("content", "")) for turn in prompt)
