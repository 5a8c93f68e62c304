"""Answers in templates whose own `{% generation %}` spans are missing or unfit: found by marks in their places.

A stock template says neither where an answer begins nor where it ends. It is rendered with a mark for each answer, and
up to each answer as for generation: an answer begins where the prompt of its generation ends, and ends with the special
token that follows its text. An earlier answer that the whole conversation writes otherwise, as by reasoning models that
drop the thoughts of earlier turns, is text of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rlhf.errors import TemplateError

GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
_MARK = re.compile("\ue0a0(\\d+)\ue0a1")
OWN_SPANS = "set data.template to a preset (chatml, solar, kullm ...) or to a Jinja file with {% generation %} spans"
Rows = Sequence[dict[str, Any]]
Render = Callable[[Rows, bool], str]  # rows, and whether to open an answer at the end


class AnswerForm(NamedTuple):
    """How a template without fitting spans writes an answer: its text, then `end`, of which the last token is `eos`.

    opens_next: the end is the token that opens the next turn, so that a last answer is rendered without it.
    last_only: earlier answers are written otherwise than they are opened.
    """

    end: str
    eos: str
    opens_next: bool = False
    last_only: bool = False


class TextSpan(NamedTuple):
    """A part of the rendered text; `answer` is True for an answer with its end."""

    text: str
    answer: bool


def has_spans(template: str) -> bool:
    """Whether the template marks its answers itself."""
    return GENERATION.search(template) is not None


def answer_form(talk: Rows, render: Render, eos: str, special: Sequence[str]) -> AnswerForm:
    """The form of an answer, from a conversation of two exchanges.

    Args:
        talk: user, assistant, user, assistant.
        render: by the template.
        eos: the tokenizer's EOS, with which an end of several special tokens ends.
        special: the texts of all special tokens.

    Raises: TemplateError when no special token follows an answer.
    """
    _, middle, last = _around(talk, render)
    end = special_run(last, eos, special)
    if not middle.startswith(end):  # EOS at the very end of a conversation
        end = special_run(last, "", special)
    opens_next = not end and not last.strip()
    if opens_next:
        end = special_run(middle, "", special)
    if not end:
        shown = middle if opens_next else last
        raise TemplateError(
            f"the chat template puts no special token after an answer, but {shown[:40]!r}",
            where="data.template",
            expected="an end-of-turn token right after the answer: a model that never learns one never stops",
            fix=OWN_SPANS,
        )
    token = next(text for text in sorted(special, key=len, reverse=True) if end.endswith(text))
    form = AnswerForm(end, token, opens_next)
    return form._replace(last_only=sum(piece.answer for piece in split_at_answers(talk, render, form)) < 2)


def special_run(text: str, eos: str, special: Sequence[str]) -> str:
    """White space and special tokens at the start of `text`: up to EOS if they reach it, else the first; or ""."""
    names = sorted(filter(None, special), key=len, reverse=True)
    first, place = "", len(text) - len(text.lstrip())
    while found := next((name for name in names if text.startswith(name, place)), ""):
        place += len(found)
        first = first or text[:place]
        if found == eos:
            return text[:place]
    return first


def split_at_answers(
    rows: Rows, render: Render, form: AnswerForm, *, open_answer: bool = False, calls: bool = False
) -> list[TextSpan]:
    """The rendered text in pieces. White space that the template writes between the opening of an answer and its text,
    and not when it opens one, belongs to the answer.

    Args:
        rows: the conversation.
        render: by the template.
        form: how the template writes an answer.
        open_answer: end with the opening of an answer to generate.
        calls: whether turns that call tools are answers too, instead of text of the prompt.

    Raises: TemplateError when an answer is left out, or the last turn does not follow the prompt of its generation.
    """
    hidden = [{**row, "content": _mark(place)} if _is_text(row) else row for place, row in enumerate(rows)]
    text, spans = _whole(hidden, render, open_answer=open_answer), list[tuple[int, int]]()
    for place in reversed([at for at, row in enumerate(rows) if _is_text(row) or (calls and row.get("tool_calls"))]):
        last = place == len(rows) - 1
        if last and form.opens_next and _is_text(rows[place]):
            text = text.rstrip() + form.end
        found = _span(text, hidden[: place + 1], render, form)
        if isinstance(found, TemplateError):
            if last:
                raise found
            break  # with all before it this is text of the prompt
        spans.append(found)
    position, pieces = 0, list[TextSpan]()
    for start, end in reversed(spans):
        pieces += [TextSpan(text[position:start], False), TextSpan(text[start:end], True)]
        position = end
    pieces.append(TextSpan(text[position:], False))
    return [TextSpan(_shown(piece.text, rows), piece.answer) for piece in pieces]


def _span(text: str, rows: Rows, render: Render, form: AnswerForm) -> tuple[int, int] | TemplateError:
    """Where the last of `rows` begins and ends in the text of a conversation, or why it is no answer to learn."""
    opened, place = render(rows[:-1], True), len(rows) - 1
    if rows[-1].get("tool_calls"):
        end = len(opened) + _called(render(rows, False), opened, form)
        return (len(opened), end) if end > len(opened) and text.startswith(opened) else _unlike(opened, text)
    mark = _mark(place)
    start = text.index(mark)
    if not text.startswith(opened) or text[len(opened) : start].strip():
        return _unlike(opened, text[:start])
    if not text.startswith(form.end, start + len(mark)):
        after = text[start + len(mark) :][:40]
        return TemplateError(
            f"the chat template ends an answer with {after!r}, not with {form.end!r}",
            where="data.template",
            fix=OWN_SPANS,
        )
    return len(opened), start + len(mark) + len(form.end)


def _called(text: str, opened: str, form: AnswerForm) -> int:
    """The length of a turn that calls tools, with its end; 0 where it cannot be told."""
    rest = text.removeprefix(opened)
    written, found, after = rest.rpartition(form.end)
    return len(written) + len(form.end) if found and text.startswith(opened) and not after.strip() else 0


def _unlike(opened: str, trained: str) -> TemplateError:
    thinks = re.search(r"<(think|thought)>\s*$", opened)
    reason = (
        f"; it opens every answer with {thinks.group().strip()}, a thought that the data does not hold"
        if thinks
        else ""
    )
    opened, trained = (_MARK.sub("...", text)[-60:] for text in (opened, trained))
    return TemplateError(
        f"the prompt rendered for generation differs from the prompt in training: it ends in {opened!r}, that of "
        f"training in {trained!r}{reason}",
        where="data.template",
        expected="a template whose add_generation_prompt ends exactly where the answer begins",
        fix=OWN_SPANS if thinks else "end the generation prompt with the same text that precedes an answer",
    )


def _is_text(row: dict[str, Any]) -> bool:
    """Whether the turn is an answer in words."""
    return row["role"] == "assistant" and not row.get("tool_calls")


def _whole(hidden: Rows, render: Render, *, open_answer: bool = False) -> str:
    """The rendered text. Raises: TemplateError for a template that drops or repeats an answer."""
    text = render(hidden, open_answer)
    if any(text.count(_mark(place)) != 1 for place, row in enumerate(hidden) if _is_text(row)):
        raise TemplateError(
            "the chat template leaves out an answer of the conversation, or writes it twice",
            where="data.template",
            fix="set data.template to a preset or to a template that writes every turn once",
        )
    return text


def _around(rows: Rows, render: Render) -> list[str]:
    """The text around the n answers of a conversation without calls, [n + 1]."""
    hidden = [{**row, "content": _mark(place)} if _is_text(row) else row for place, row in enumerate(rows)]
    return re.split("|".join(_mark(place) for place in range(len(rows))), _whole(hidden, render))


def _mark(place: int) -> str:
    return f"\ue0a0{place}\ue0a1"  # of the private use area: in no text, and kept by trim


def _shown(text: str, rows: Rows) -> str:
    """The text with answers in place of their marks."""
    return _MARK.sub(lambda mark: str(rows[int(mark[1])]["content"]), text)
