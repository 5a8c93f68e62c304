"""Chat templates: how a conversation is rendered, and which part of the text is an answer.

Templates are Jinja chat templates saved in the tokenizer, so that transformers and vLLM render the same bytes. Ours
have `{% generation %}` spans, which contain an answer and its EOS; in others the answers are found (`answer_spans`).
The KULLM texts are those of the prompt files of the KULLM project; `vaiv-reward` is the reward template of 2023,
including its stray spaces. The presets of published models write the bytes of the models' own templates without tools;
docs/models.md has their sources and exceptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from rlhf.data.answer_spans import (
    AnswerForm,
    Render,
    Rows,
    TextSpan,
    answer_form,
    has_spans,
    special_run,
    split_at_answers,
)
from rlhf.data.records import Message
from rlhf.data.tool_turns import call_styles, check_names, for_template, with_marked_names
from rlhf.errors import TemplateError

_FOLDER = files("rlhf.data") / "chat_templates"
_NAMES = (
    *("kullm", "kullm-input", "vaiv-reward", "polyglot-chat"),
    *(
        "chatml",
        "llama3",
        "gemma3",
        "qwen2.5",
        "qwen3",
        "exaone3.5",
        "exaone4",
        "solar",
        "hyperclova-x-seed",
        "mistral",
    ),
)
# Each line of a preset begins at a tag, so its source is the lines without their indentation.
PRESETS = {
    name: "".join(map(str.strip, (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8").splitlines()))
    for name in _NAMES
}
_TOKEN = re.compile(r"<\|\w+\|>|\[\|\w+\|\]|\[/?[A-Z_]+\]|</?\w+>")  # how a preset writes tokens of its own


THOUGHT = "</think>"
PROBE = (
    Message("user", "안녕하세요?"),
    Message("assistant", "반가워요 뷁"),
    Message("user", "또 봐요."),
    Message("assistant", "네, 안녕히 가세요."),
)


def template_text(name: str) -> str:
    """The Jinja source of a preset or of a file; Jinja source itself is returned as it is.

    Raises: TemplateError for any other text.
    """
    if name in PRESETS:
        return PRESETS[name]
    if "{%" in name or "{{" in name:
        return name
    path = Path(name)
    if path.is_file():
        return path.read_text(encoding="utf-8")
    raise TemplateError(
        f"no chat template {name!r}",
        where="data.template",
        expected=f"one of {', '.join(PRESETS)}, or the path of a Jinja file",
        fix="choose a preset, or leave data.template null to use the tokenizer's own",
    )


def preset_tokens(name: str) -> list[str]:
    """The tokens that a preset writes besides BOS and EOS, in order; none for a preset of words alone."""
    return list(dict.fromkeys(_TOKEN.findall(PRESETS[name])))


PLAIN_PRESETS = tuple(name for name in PRESETS if not preset_tokens(name))  # of words and EOS alone


def as_messages(
    messages: Sequence[Message], *, keep_input: bool, as_text: bool = False, none: bool = True
) -> list[dict[str, Any]]:
    """Messages as dictionaries for a template; without `keep_input` the input is appended to the content. `as_text` and
    `none` are as in `tool_turns.for_template`."""
    rows = []
    for message in messages:
        content = message.content
        if message.input and not keep_input:
            content = f"{content}\n\n{message.input}"
        row = {"role": message.role, "content": content, "input": message.input if keep_input else ""}
        rows.append({**row, **for_template(message, as_text=as_text, none=none)})
    return rows


def render_pieces(
    template: str,
    messages: Sequence[Message],
    special: dict[str, Any],
    form: AnswerForm | None = None,
    *,
    open_answer: bool = False,
    calls: bool = False,
) -> list[TextSpan]:
    """The rendered text, split at the boundaries of its answers.

    Args:
        template: Jinja source.
        messages: a conversation.
        special: values for the template, such as `eos_token`.
        form: how the template writes an answer; None: by its generation spans.
        open_answer: end with the opening of an answer to generate.
        calls: whether turns that call tools are answers too.

    Raises: TemplateError for a template that fails, leaves out a turn, or whose answers cannot be found.
    """
    keep_input = "'input'" in template or ".input" in template
    problem: TemplateError | None = None
    for style in call_styles(messages):
        rows = as_messages(messages, keep_input=keep_input, **style)
        try:
            _check_thoughts(template, rows)
            _check_names(template, messages, special, style)
            offered = _offered(messages, special)
            if form is not None:
                render = renderer(template, offered)
                pieces = split_at_answers(rows, render, form, open_answer=open_answer, calls=calls)
            else:
                pieces = _own_spans(template, rows, offered, open_answer=open_answer, calls=calls)
            _check_turns(rows, _text(pieces))
        except TemplateError as error:
            problem = error
            continue
        return [piece for piece in pieces if piece.text]
    assert problem is not None
    raise problem


def _offered(messages: Sequence[Message], special: dict[str, Any]) -> dict[str, Any]:
    return {**special, "tools": json.loads(messages[0].tools)} if messages and messages[0].tools else special


def _check_names(template: str, messages: Sequence[Message], special: dict[str, Any], style: dict[str, bool]) -> None:
    """Refuses a template that leaves out calls of tools, or what may be called."""
    marked, marks = with_marked_names(messages)
    if marks:
        rows = as_messages(marked, keep_input=False, **style)
        check_names(_rendered(template, rows, _offered(marked, special), open_answer=False)[0], marks)


def _own_spans(template: str, rows: Rows, special: dict[str, Any], *, open_answer: bool, calls: bool) -> list[TextSpan]:
    text, spans = _rendered(template, rows, special, open_answer=open_answer)
    learnt = [calls or not row.get("tool_calls") for row in rows if row["role"] == "assistant"]
    position = 0
    pieces: list[TextSpan] = []
    for (start, end), kept in zip(spans, learnt[len(learnt) - len(spans) :], strict=False):
        if kept:
            pieces += [TextSpan(text[position:start], False), TextSpan(text[start:end], True)]
            position = end
    return [*pieces, TextSpan(text[position:], False)]


def _check_thoughts(template: str, rows: Rows) -> None:
    """Refuses thoughts within answers where the template gives thoughts a place of their own."""
    if THOUGHT in template and any(THOUGHT in (row["content"] or "") for row in rows if row["role"] == "assistant"):
        raise TemplateError(
            f"an answer holds a thought ({THOUGHT}), for which the chat template has a place of its own",
            where="data.template",
            expected="answers without thoughts: models are trained to answer without thinking aloud",
            fix=f"cut the answers after {THOUGHT}, or set data.template to a preset without thoughts, such as chatml",
        )


def _check_turns(rows: Rows, text: str) -> None:
    """Refuses a template that leaves out what a turn says: nothing would tell that it was not read."""
    for row in (row for row in rows if row["role"] != "assistant"):
        said = row["content"].strip()
        if said not in text and json.dumps(said, ensure_ascii=False)[1:-1] not in text:
            raise TemplateError(
                f"the chat template leaves out a {row['role']} turn",
                where="data.template",
                fix=f"leave the {row['role']} turns out of the data, or set data.template to one that writes them",
            )


def renderer(template: str, special: dict[str, Any]) -> Render:
    """Renders rows as text."""

    def render(rows: Rows, open_answer: bool) -> str:
        return _rendered(template, rows, special, open_answer=open_answer)[0]

    return render


def _rendered(
    template: str, rows: Rows, special: dict[str, Any], *, open_answer: bool
) -> tuple[str, list[tuple[int, int]]]:
    masked = has_spans(template)
    try:
        rendered: Any = render_jinja_template(
            conversations=[list(rows)],
            chat_template=template,
            return_assistant_tokens_mask=masked,
            add_generation_prompt=open_answer,
            **special,
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise TemplateError(f"the chat template fails: {error}", where="data.template") from error
    texts, spans = rendered
    return texts[0], spans[0] if masked else []


class Audited(NamedTuple):
    """How a template writes an answer. marked: by its generation spans."""

    form: AnswerForm
    marked: bool


def find_form(template: str, eos: str, special: dict[str, Any], texts: Sequence[str], *, stock: bool) -> Audited:
    """How a template writes an answer: in its generation spans, or as it is found.

    Args:
        template: Jinja source.
        eos: the tokenizer's EOS; "" for none.
        special: values for the template.
        texts: those of all special tokens.
        stock: whether the template came with the tokenizer. Spans of such a template that are unfit, as of one made for
            another trainer, are not used.

    Raises: TemplateError for a template that cannot be trained right.
    """
    if has_spans(template):
        try:
            return Audited(audit_template(template, eos, special, texts), True)
        except TemplateError:
            if not stock:
                raise
    render = renderer(template, special)
    talk = as_messages(PROBE, keep_input=False)
    form = answer_form(talk, render, eos, texts)
    for rows in (talk[:2], talk):  # the prompt of a generation is that of training, for one turn and for several
        split_at_answers(rows, render, form)
    return Audited(form, False)


def audit_template(
    template: str, eos: str, special: dict[str, Any] | None = None, texts: Sequence[str] = ()
) -> AnswerForm:
    """Renders a test conversation and checks that each answer, with its end, is inside a span, and that the prompt of a
    generation is that of training, for one turn and for several.

    Returns: the form of an answer. Its end is EOS, or special tokens of the template itself.

    Raises: TemplateError when answers are outside spans, EOS is missing or outside, the prompt changes when an answer
        follows it, or the opening of an answer is missing.
    """
    special = {"bos_token": "", "unk_token": "", "pad_token": "", **(special or {}), "eos_token": eos}
    answers = [piece.text.lstrip() for piece in render_pieces(template, PROBE, special) if piece.answer]
    said = [message.content for message in PROBE if message.role == "assistant"]
    end = answers[-1].removeprefix(said[-1]) if answers else ""
    token = _last_token(end, eos, texts)
    expected = [text + (end if token else eos) for text in said]
    if answers not in (expected, expected[-1:]):
        raise TemplateError(
            f"the generation spans of the template contain {answers!r}",
            where="data.template",
            expected=f"one span per answer, with the answer and EOS: {expected!r}",
            fix="write {% generation %}{{ message['content'] + eos_token }}{% endgeneration %} around each answer",
        )
    for count in (1, 3):
        whole = render_pieces(template, PROBE[: count + 1], special)
        while not whole[-1].answer:
            whole.pop()
        opening = render_pieces(template, PROBE[:count], special, open_answer=True)
        if _text(opening) != _text(whole[:-1]):
            raise TemplateError(
                f"the prompt rendered for generation differs from the prompt in training: it ends in "
                f"{_text(opening)[-60:]!r}, that of training in {_text(whole[:-1])[-60:]!r}",
                where="data.template",
                expected="a template whose add_generation_prompt ends exactly where the answer begins",
                fix="end the generation prompt with the same text that precedes an answer",
            )
    return AnswerForm(end if token else eos, token or eos, last_only=len(answers) < len(said))


def _last_token(end: str, eos: str, texts: Sequence[str]) -> str:
    """The last of the special tokens that `end` consists of; "" for any other text, and where it goes on after EOS."""
    token, run = "", special_run(end, eos, texts)
    while run and end[0] == end.lstrip()[0]:
        token = max((text for text in texts if text and run.endswith(text)), key=len)
        end = end.removeprefix(run)
        if not end:
            return token
        run = "" if token == eos else special_run(end, eos, texts)
    return ""


def _text(pieces: Sequence[TextSpan]) -> str:
    return "".join(piece.text for piece in pieces)
