"""The red-team set on one page: rates by category, then every answer, those that need a look first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.evaluate.answers.page import origin
from rlhf.evaluate.figures import STYLE, Cell, figure_cell, interval_cell, pair, rich_table, said
from rlhf.evaluate.safety.rates import CATEGORIES, HARMFUL, RedTeamAnswer
from rlhf.html.page import document, section

TITLES = {
    "rude": "rude",
    "hateful": "hateful",
    "self_harm": "self-harm",
    "personal_data": "personal data",
    "injection": "prompt injection",
    "harmless": "harmless look-alikes",
}
AnswersByModel = Mapping[str, Sequence[RedTeamAnswer]]


def render_page(report: Mapping[str, Any], answers: AnswersByModel) -> str:
    """The whole page."""
    body = "".join(
        (
            f"<h1>Red-team prompts</h1>{origin(report)}{_note()}",
            *(section(name, _rates(rates)) for name, rates in report["rates"].items()),
            section("Answers", *(_category(name, answers) for name in CATEGORIES)),
        )
    )
    return document("Red-team prompts", body, STYLE)


def _note() -> str:
    return (
        '<p class="note">Found by rules, not by reading: a refusal by its phrases, an echo by words that a good answer '
        "does not say (or private data, where that was asked for), support by words that point to help. A refusal is "
        "not always the right answer, and an answer without one is not always harmful: read them. 95 % intervals by "
        "Wilson, over prompts.</p>"
    )


def _rates(rates: Mapping[str, Any]) -> str:
    rows = []
    for name in HARMFUL:
        if name in rates["categories"]:
            rows.append([TITLES[name], *_pair(rates["categories"][name])])
    rows.append([Cell("<b>all of these</b>"), *_pair(rates["harmful"])])
    parts = [rich_table(("", "refused", "", "echoed", "", "prompts"), rows)]
    support = rates["categories"].get("self_harm", {}).get("supported")
    if support:
        parts.append(f"<p>Prompts about self-harm met with words of support: {_percent(support)}.</p>")
    if rates["harmless"]:
        found = rates["harmless"]
        lines = [
            [
                "all look-alikes",
                _percent(found["over_refusal"]),
                _drawn(found["over_refusal"]),
                _num(found["over_refusal"]),
            ]
        ]
        lines += [
            [f"like {TITLES[name]}", _percent(each), _drawn(each), _num(each)] for name, each in found["like"].items()
        ]
        parts.append(rich_table(("harmless look-alikes", "refused", "", "prompts"), lines))
    return "".join(parts)


def _pair(found: Mapping[str, Any]) -> list[str]:
    refusal, echo = found["refusal"], found["echo"]
    return [_percent(refusal), _drawn(refusal), _percent(echo), _drawn(echo), _num(refusal)]


def _category(name: str, answers: AnswersByModel) -> str:
    """Every prompt of a category with all answers; prompts with something to look at come first."""
    models = list(answers)
    places = [row for row, each in enumerate(answers[models[0]]) if each.prompt.category == name]
    if not places:
        return ""
    flagged = [row for row in places if any(answers[model][row].concern for model in models)]
    ordered = flagged + [row for row in places if row not in flagged]
    boxes = "".join(
        pair(
            answers[models[0]][row].prompt.text,
            [said(model, answers[model][row].answer, tags=_tags(answers[model][row])) for model in models],
            answers[models[0]][row].prompt.id,
        )
        for row in ordered
    )
    count = f"{len(places)} prompts, {len(flagged)} to look at"
    top = f"<summary><b>{escape(TITLES[name])}</b> ({count})</summary>"
    return f"<details{' open' if flagged else ''}>{top}{boxes}</details>"


def _tags(answer: RedTeamAnswer) -> list[tuple[str, str]]:
    good = answer.prompt.category != "harmless"
    tags = [(answer.concern, "bad")] if answer.concern else []
    tags += [("refused", "good")] if answer.refused and good else []
    return tags + ([("support", "good")] if answer.supported and answer.prompt.category == "self_harm" else [])


def _percent(figure: Mapping[str, float]) -> Cell:
    return figure_cell(figure, "{:.0%}".format)


def _drawn(figure: Any) -> str:
    return interval_cell(figure, 0.0, 1.0)


def _num(figure: Mapping[str, Any]) -> str:
    return f"{figure['num']:,}"
