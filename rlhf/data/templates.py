"""Chat templates: how a conversation is rendered, and which part of the text is an answer.

Templates are Jinja chat templates saved in the tokenizer, so that transformers and vLLM render the same bytes. Ours
have `{% generation %}` spans, which contain an answer and its EOS; in others the answers are found (`answer_spans`).
The KULLM texts are those of the prompt files of the KULLM project; `vaiv-reward` is the reward template of 2023,
including its stray spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from rlhf.data.answer_spans import Render, answer_end, has_spans, prompts_agree, split_at_answers
from rlhf.data.records import Message
from rlhf.errors import TemplateError

_FOLDER = files("rlhf.data") / "chat_templates"
# Each line of a preset begins at a tag, so its source is the lines without their indentation.
PRESETS = {
    name: "".join(map(str.strip, (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8").splitlines()))
    for name in ("kullm", "kullm-input", "vaiv-reward", "polyglot-chat")
}


# Values that stock templates ask for: reasoning models open an answer with an empty thought, and a template that writes
# today's date would train and serve with different prompts.
STILL = {"enable_thinking": False, "date_string": "26 Jul 2024"}
PROBE = (
    Message("user", "안녕하세요?"),
    Message("assistant", "반가워요 뷁"),
    Message("user", "또 봐요."),
    Message("assistant", "네, 안녕히 가세요."),
)


class TextSpan(NamedTuple):
    """A part of the rendered text; `answer` is True inside a generation span."""

    text: str
    answer: bool


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


def as_messages(messages: Sequence[Message], *, keep_input: bool) -> list[dict[str, str]]:
    """Messages as dictionaries for a template; without `keep_input` the input is appended to the content."""
    rows = []
    for message in messages:
        content = message.content
        if message.input and not keep_input:
            content = f"{content}\n\n{message.input}"
        rows.append({"role": message.role, "content": content, "input": message.input if keep_input else ""})
    return rows


def render_pieces(
    template: str,
    messages: Sequence[Message],
    special: dict[str, Any],
    *,
    open_answer: bool = False,
) -> list[TextSpan]:
    """The rendered text, split at the boundaries of its answers.

    Args:
        template: Jinja source, with generation spans or without.
        messages: a conversation.
        special: values for the template, such as `eos_token`, which ends an answer.
        open_answer: end with the opening of an answer to generate.

    Raises: TemplateError for a template that fails, or whose answers cannot be found.
    """
    rows = as_messages(messages, keep_input="'input'" in template or ".input" in template)
    if not has_spans(template):
        found = split_at_answers(
            rows, renderer(template, special), str(special.get("eos_token", "")), open_answer=open_answer
        )
        return [TextSpan(text, answer) for text, answer in found if text]
    text, spans = _rendered(template, rows, special, open_answer=open_answer)
    position = 0
    pieces: list[TextSpan] = []
    for start, end in spans:
        pieces += [TextSpan(text[position:start], False), TextSpan(text[start:end], True)]
        position = end
    pieces.append(TextSpan(text[position:], False))
    return [piece for piece in pieces if piece.text]


def renderer(template: str, special: dict[str, Any]) -> Render:
    """Renders rows by a template without spans, always alike: without thinking, and with a date that stands still."""

    def render(rows: Sequence[dict[str, str]], open_answer: bool) -> str:
        return _rendered(template, rows, {**STILL, **special}, open_answer=open_answer)[0]

    return render


def _rendered(
    template: str, rows: Sequence[dict[str, str]], special: dict[str, Any], *, open_answer: bool
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


def stock_end(template: str, eos: str, special: dict[str, Any], special_texts: Sequence[str]) -> str:
    """The special token that ends an answer in a template without spans; `eos` for one with spans.

    Raises: TemplateError when there is none.
    """
    if has_spans(template):
        return eos
    return answer_end(as_messages(PROBE[:2], keep_input=False), renderer(template, special), [eos, *special_texts])


def history_changes(template: str, special: dict[str, Any]) -> bool:
    """Whether an answer of an earlier turn stands behind another text than the one its generation begins with, as with
    reasoning models that drop the thoughts of earlier turns: such an answer cannot be trained on."""
    if has_spans(template):
        return False
    return not all(prompts_agree(as_messages(PROBE, keep_input=False), renderer(template, special))[:-1])


def audit_template(template: str, eos: str, special: dict[str, Any] | None = None) -> None:
    """Renders a test conversation and checks that each answer, with its EOS, is inside a span, and that the prompt of a
    generation is that of training, for one turn and for several.

    Raises: TemplateError when answers are outside spans, EOS is missing or outside, the prompt changes when an answer
        follows it, or the opening of an answer is missing.
    """
    special = {"bos_token": "", "unk_token": "", "pad_token": "", **(special or {}), "eos_token": eos}
    pieces = render_pieces(template, PROBE, special)
    answers = [piece.text.lstrip() for piece in pieces if piece.answer]
    expected = [message.content + eos for message in PROBE if message.role == "assistant"]
    if answers != expected:
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


def _text(pieces: Sequence[TextSpan]) -> str:
    return "".join(piece.text for piece in pieces)
