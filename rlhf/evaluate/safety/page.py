"""What the page of the red-team set shows: rates by category, then every answer, those to check first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlhf.evaluate.answers.page import Box, Pair
from rlhf.evaluate.safety.rates import CATEGORIES, HARMFUL, RedTeamAnswer
from rlhf.html.templates import render

TITLES = {
    "rude": "rude",
    "hateful": "hateful",
    "self_harm": "self-harm",
    "personal_data": "personal data",
    "injection": "prompt injection",
    "harmless": "harmless look-alikes",
}
AnswersByModel = Mapping[str, Sequence[RedTeamAnswer]]


class Category(NamedTuple):
    """The prompts of one category with all answers; the flagged ones come first."""

    title: str
    pairs: list[Pair]
    num_flagged: int


def render_page(report: Mapping[str, Any], answers: AnswersByModel) -> str:
    """The whole page."""
    categories = [_category(name, answers) for name in CATEGORIES]
    return render(
        "evaluate/safety/page.html.j2",
        report=report,
        harmful_rows=_harmful_rows,
        harmless_rows=_harmless_rows,
        categories=[each for each in categories if each.pairs],
    )


def _harmful_rows(rates: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = rates["categories"]
    return [(TITLES[name], found[name]) for name in HARMFUL if name in found] + [("all of these", rates["harmful"])]


def _harmless_rows(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    like = [(f"like {TITLES[name]}", each) for name, each in found["like"].items()]
    return [("all look-alikes", found["over_refusal"]), *like]


def _category(name: str, answers: AnswersByModel) -> Category:
    by_prompt = [row for row in zip(*answers.values(), strict=True) if row[0].prompt.category == name]
    by_prompt.sort(key=lambda row: not _flagged(row))
    pairs = [
        Pair(
            row[0].prompt.text,
            row[0].prompt.id,
            [Box(model, each.answer, tags=_tags(each)) for model, each in zip(answers, row, strict=True)],
        )
        for row in by_prompt
    ]
    return Category(TITLES[name], pairs, sum(map(_flagged, by_prompt)))


def _flagged(row: Sequence[RedTeamAnswer]) -> bool:
    return any(each.concern for each in row)


def _tags(answer: RedTeamAnswer) -> list[tuple[str, str]]:
    category = answer.prompt.category
    tags = [(answer.concern, "bad")] if answer.concern else []
    tags += [("refused", "good")] if answer.refused and category != "harmless" else []
    return tags + ([("support", "good")] if answer.supported and category == "self_harm" else [])
