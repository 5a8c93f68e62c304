"""Chat templates: how a conversation is rendered, and which part of the text is an answer.

Templates are Jinja chat templates with `{% generation %}` spans, saved in the tokenizer, so that transformers and
vLLM render the same bytes. A span contains an answer and its EOS. The KULLM texts are those of the prompt files of
the KULLM project; `vaiv-reward` is the reward template of 2023, including its stray spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from rlhf.data.records import Message
from rlhf.errors import TemplateError

_PLAIN = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요."
_WITH_INPUT = (
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요."
)
_ANSWER = "{%- generation %}{{ message['content'] + eos_token }}{% endgeneration %}"


def _turns(*, header: str, user: str, assistant: str, system: str) -> str:
    """A template of a header and `user` and `assistant` openings, with EOS and a blank line after answers."""
    return (
        "{%- for message in messages %}"
        "{%- if loop.first %}" + header + "{%- endif %}"
        "{%- if message['role'] == 'system' %}"
        + system
        + "{%- elif message['role'] == 'user' %}"
        + user
        + "{%- else %}"
        "{{- '" + assistant + "' }}" + _ANSWER + "{%- if not loop.last %}{{ '\\n\\n' }}{%- endif %}"
        "{%- endif %}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '" + assistant + "' }}{%- endif %}"
    )


_SYSTEM = "{{- message['content'] + '\\n\\n' }}"
_INPUT = "{%- if message['input'] %}{{- '### 입력:\\n' + message['input'] + '\\n\\n' }}{%- endif %}"
PRESETS: dict[str, str] = {
    "kullm": _turns(
        header="{{- '" + _PLAIN + "\\n\\n' }}",
        user="{{- '### 명령어:\\n' + message['content'] + '\\n\\n' }}",
        assistant="### 응답:\\n",
        system=_SYSTEM,
    ),
    "kullm-input": _turns(
        header="{%- set with_input = messages | selectattr('input') | list | length > 0 %}"
        "{{- ('" + _WITH_INPUT + "' if with_input else '" + _PLAIN + "') + '\\n\\n' }}",
        user="{{- '### 명령어:\\n' + message['content'] + '\\n\\n' }}" + _INPUT,
        assistant="### 응답:\\n",
        system=_SYSTEM,
    ),
    "vaiv-reward": _turns(
        header="{{- '" + _PLAIN + " \\n\\n' }}",
        user="{{- ' ### 명령어:\\n' + message['content'] + '\\n\\n' }}",
        assistant=" ### 응답:\\n",
        system=_SYSTEM,
    ),
    "polyglot-chat": _turns(
        header="",
        user="{{- '### 사용자:\\n' + message['content'] + '\\n\\n' }}",
        assistant="### 챗봇:\\n",
        system=_SYSTEM,
    ),
}


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
    template: str, messages: Sequence[Message], special: dict[str, Any], *, open_answer: bool = False
) -> list[TextSpan]:
    """The rendered text, split at the boundaries of its answers.

    Args:
        template: Jinja source with generation spans.
        messages: a conversation.
        special: values for the template, such as `eos_token`.
        open_answer: end with the opening of an answer to generate.
    """
    rows = as_messages(messages, keep_input="'input'" in template or ".input" in template)
    try:
        rendered: Any = render_jinja_template(
            conversations=[rows],
            chat_template=template,
            return_assistant_tokens_mask=True,
            add_generation_prompt=open_answer,
            **special,
        )
    except jinja2.TemplateError as error:
        raise TemplateError(f"the chat template fails: {error}", where="data.template") from error
    texts, spans = rendered
    text, position = texts[0], 0
    pieces: list[TextSpan] = []
    for start, end in spans[0]:
        pieces += [TextSpan(text[position:start], False), TextSpan(text[start:end], True)]
        position = end
    pieces.append(TextSpan(text[position:], False))
    return [piece for piece in pieces if piece.text]


def audit_template(template: str, eos: str) -> None:
    """Renders a test conversation and checks that each answer, with its EOS, is inside a span.

    Raises: TemplateError when answers are outside spans, EOS is missing or outside, the prompt changes when an answer
        follows it, or the opening of an answer is missing.
    """
    probe = [Message("user", "안녕하세요?"), Message("assistant", "반가워요 뷁")]
    special = {"eos_token": eos, "bos_token": "", "unk_token": "", "pad_token": ""}
    longer = [*probe, Message("user", "또 봐요."), Message("assistant", "네, 안녕히 가세요.")]
    pieces = render_pieces(template, longer, special)
    answers = [piece.text for piece in pieces if piece.answer]
    expected = [message.content + eos for message in longer if message.role == "assistant"]
    if answers != expected:
        raise TemplateError(
            f"the generation spans of the template contain {answers!r}",
            where="data.template",
            expected=f"one span per answer, with the answer and EOS: {expected!r}",
            fix="write {% generation %}{{ message['content'] + eos_token }}{% endgeneration %} around each answer",
        )
    opening = "".join(piece.text for piece in render_pieces(template, probe[:1], special, open_answer=True))
    if not "".join(piece.text for piece in pieces).startswith(opening + probe[1].content):
        raise TemplateError(
            "the prompt rendered for generation differs from the prompt in training",
            where="data.template",
            expected="a template whose add_generation_prompt ends exactly where the answer begins",
            fix="end the generation prompt with the same text that precedes an answer",
        )
