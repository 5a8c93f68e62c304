"""Answers in templates without `{% generation %}`: found by rendering a conversation with marks in their places.

A stock template says neither where an answer begins nor where it ends. It is rendered with a mark for each answer, and
up to each answer as for generation: an answer begins where the prompt of its generation ends, and ends with the special
token that follows its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rlhf.errors import TemplateError

GENERATION = re.compile(r"\{%-?\s*generation\b")
Render = Callable[[Sequence[dict[str, str]], bool], str]  # rows, and whether to open an answer at the end


def has_spans(template: str) -> bool:
    """Whether the template marks its answers itself."""
    return GENERATION.search(template) is not None


def marked(rows: Sequence[dict[str, str]], render: Render, *, open_answer: bool = False) -> list[str]:
    """The text around the n answers of a conversation, [n + 1].

    Raises: TemplateError for a template that drops or repeats an answer.
    """
    marks = [_mark(place) for place, row in enumerate(rows) if row["role"] == "assistant"]
    hidden = [{**row, "content": _mark(place)} if row["role"] == "assistant" else row for place, row in enumerate(rows)]
    text = render(hidden, open_answer)
    between = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise TemplateError(
                "the template leaves out an answer of the conversation, or writes it twice",
                where="data.template",
                fix="set data.template to a preset or to a template that writes every turn once",
            )
        between.append(before)
    return [*between, text]


def _mark(place: int) -> str:
    return f"\ue0a0{place}\ue0a1"  # of the private use area: in no text, and kept by trim


def answer_end(rows: Sequence[dict[str, str]], render: Render, special: Sequence[str]) -> str:
    """The special token that ends an answer in this template, of the texts `special`.

    Raises: TemplateError when the text after an answer does not begin with one.
    """
    after = marked(rows, render)[1]
    found = [text for text in special if text and after.startswith(text)]
    if not found:
        raise TemplateError(
            f"the chat template puts no special token after an answer, but {after[:40]!r}",
            where="data.template",
            expected="an end-of-turn token right after the answer: a model that never learns one never stops",
            fix="set data.template to a preset (chatml, kullm ...) or to a Jinja file with {% generation %} spans",
        )
    return max(found, key=len)


def split_at_answers(
    rows: Sequence[dict[str, str]], render: Render, end: str, *, open_answer: bool = False
) -> list[tuple[str, bool]]:
    """The rendered text in pieces, True for an answer with its end. White space that the template writes between the
    opening of an answer and its text, and not when it opens one, belongs to the answer.

    Raises: TemplateError when an answer is not followed by `end`.
    """
    between = marked(rows, render, open_answer=open_answer)
    places = [place for place, row in enumerate(rows) if row["role"] == "assistant"]
    pieces: list[tuple[str, bool]] = []
    for number, place in enumerate(places):
        before, after = between[number], between[number + 1]
        opened = marked(rows[:place], render, open_answer=True)[-1]
        kept = opened if before.startswith(opened) and not before[len(opened) :].strip() else before
        if not after.startswith(end):
            raise TemplateError(
                f"the chat template ends answer {number + 1} with {after[:40]!r}, not with {end!r}",
                where="data.template",
                fix="set data.template to a preset or to a Jinja file with {% generation %} spans",
            )
        began = end if number else ""  # of the answer before, to which it belongs
        pieces += [
            (kept.removeprefix(began), False),
            (before[len(kept) :] + rows[place]["content"] + end, True),
        ]
    return [*pieces, (between[-1].removeprefix(end if places else ""), False)]


def prompts_agree(rows: Sequence[dict[str, str]], render: Render) -> list[bool]:
    """For each answer whether the text before it in the whole conversation begins with the prompt of its generation,
    and adds white space alone."""
    between = marked(rows, render)
    agree = []
    for number, place in enumerate(at for at, row in enumerate(rows) if row["role"] == "assistant"):
        opened = marked(rows[:place], render, open_answer=True)
        more = between[number].removeprefix(opened[-1])
        agree.append(opened[:-1] == between[:number] and between[number].startswith(opened[-1]) and not more.strip())
    return agree
