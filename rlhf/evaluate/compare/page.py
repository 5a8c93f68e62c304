"""What the page of a comparison shows beside the report: differences, and both models' answers to the first prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.evaluate.answers.generation import Generations
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.answers.page import Box, Pair, differences_shown, prompt_text, text_tags
from rlhf.evaluate.compare.sentences import TOO_MANY
from rlhf.evaluate.compare.statistics import Verdicts
from rlhf.html.templates import render

KINDS = {"judge": "judge", "reward": "reward model", "people": "people"}


def render_page(report: Mapping[str, Any], generations: Generations, verdicts: Sequence[Verdicts], shown: int) -> str:
    """The whole page; the first `shown` prompts, coloured by the first verdicts that go prompt by prompt."""
    decider = next((each for each in verdicts if each.kind != "people"), None)
    rows = range(min(shown, len(generations.prompts)))
    return render(
        "evaluate/compare/page.html.j2",
        report=report,
        kinds=KINDS,
        too_many=TOO_MANY,
        measures=MEASURES,
        differences=differences_shown(report),
        decider=decider,
        pairs=[_pair(generations, row, _winner(decider.outcomes[row] if decider else ())) for row in rows],
    )


def _pair(generations: Generations, row: int, won: int | None) -> Pair:
    """Both answers to a prompt, each compared with the other."""
    texts = [each.answers[row][0] for each in generations.sets]
    boxes = []
    for number, each in enumerate(generations.sets):
        kind = "" if won is None else "won" if won == number else "lost"
        tags = [("preferred", "good")] if won == number else []
        tags += text_tags(texts[number], each.finished[row][0])
        boxes.append(Box(each.name, texts[number], texts[1 - number], tags, kind))
    prompt = generations.prompts[row]
    return Pair(prompt_text(prompt.messages), prompt.source, boxes)


def _winner(outcomes: Sequence[float]) -> int | None:
    """0 or 1 by the outcome of the first answers; None for a tie or an undecided prompt."""
    return None if not outcomes or outcomes[0] == 0.5 else int(outcomes[0] > 0.5)
