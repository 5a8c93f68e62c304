"""What the page of answers shows: measures of every model, differences, and the answers to the first prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlhf.data.korean import contains_rude
from rlhf.data.records import Message
from rlhf.evaluate.answers.generation import Generations
from rlhf.evaluate.answers.measures import MEASURES, Measure, is_mixed
from rlhf.evaluate.intervals import Figure
from rlhf.html.templates import render


class Box(NamedTuple):
    """One answer; `other` is the text it is compared with, tags are (text, good | bad | ""), `kind` is won or lost."""

    name: str
    text: str
    other: str | None = None
    tags: Sequence[tuple[str, str]] = ()
    kind: str = ""


class Pair(NamedTuple):
    """A prompt and the answers to it."""

    asked: str
    note: str
    boxes: list[Box]


def render_page(report: Mapping[str, Any], generations: Generations, shown: int) -> str:
    """The whole page; the first `shown` prompts with their answers."""
    return render(
        "evaluate/answers/page.html.j2",
        report=report,
        measures=MEASURES,
        differences=differences_shown(report),
        pairs=[_pair(generations, row) for row in range(min(shown, len(generations.prompts)))],
    )


def differences_shown(report: Mapping[str, Any]) -> list[tuple[str, list[tuple[Measure, Figure, float]]]]:
    """By pair of models, every measure's difference with the end of its axis; shares have one axis in common."""
    shown = []
    for title, gaps in report["differences"].items():
        ends = {name: _reach(gaps[name]) for name in MEASURES}
        widest = max(ends[name] for name, known in MEASURES.items() if known.percent)
        rows = [(known, gaps[name], widest if known.percent else ends[name]) for name, known in MEASURES.items()]
        shown.append((title, rows))
    return shown


def prompt_text(messages: Sequence[Message]) -> str:
    """A conversation as text; a single question without its speaker."""
    if len(messages) == 1:
        return "\n".join(filter(None, (messages[0].content, messages[0].input)))
    speakers = {"system": "설정", "user": "사용자", "assistant": "챗봇"}
    return "\n".join(f"{speakers[turn.role]}: {turn.content}" for turn in messages)


def text_tags(text: str, ended: bool) -> list[tuple[str, str]]:
    """What a reader should notice about an answer."""
    tags = [("rude", "bad")] if contains_rude(text) else []
    tags += [("mixed register", "bad")] if is_mixed(text) else []
    return tags + ([] if ended else [("cut at the limit", "")])


def _pair(generations: Generations, row: int) -> Pair:
    first = generations.sets[0].answers[row][0]
    boxes = []
    for number, each in enumerate(generations.sets):
        text = each.answers[row][0]
        boxes.append(Box(each.name, text, first if number else None, text_tags(text, each.finished[row][0])))
    prompt = generations.prompts[row]
    return Pair(prompt_text(prompt.messages), prompt.source, boxes)


def _reach(figure: Mapping[str, float]) -> float:
    """How far from 0 a difference and its interval reach."""
    return max(1e-9, *(abs(figure[end]) for end in ("mean", "low", "high") if not math.isnan(figure[end])))
