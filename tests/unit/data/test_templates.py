"""Presets byte by byte, and templates that would train a broken model."""

from __future__ import annotations

import pytest

from rlhf.data.records import Message
from rlhf.data.templates import PRESETS, TextSpan, audit_template, render_pieces, template_text
from rlhf.errors import TemplateError

EOS = "<|endoftext|>"
SPECIAL = {"eos_token": EOS, "bos_token": EOS, "unk_token": "", "pad_token": "<|padding|>"}
PLAIN = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요."
PAIRED = (
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요."
)

ASK, ANSWER = Message("user", "오늘 날씨 어때?"), Message("assistant", "맑고 따뜻해요. 뷁")
MORE, LAST = Message("user", "내일은?"), Message("assistant", "비가 온대요 ☔")
SYSTEM = Message("system", "너는 친절한 챗봇이다.")
WITH_INPUT = Message("user", "요약해 줘", "어제는 비가 왔다.")

SINGLE = {
    "kullm": f"{PLAIN}\n\n### 명령어:\n오늘 날씨 어때?\n\n### 응답:\n",
    "kullm-input": f"{PLAIN}\n\n### 명령어:\n오늘 날씨 어때?\n\n### 응답:\n",
    "vaiv-reward": f"{PLAIN} \n\n ### 명령어:\n오늘 날씨 어때?\n\n ### 응답:\n",
    "polyglot-chat": "### 사용자:\n오늘 날씨 어때?\n\n### 챗봇:\n",
}
SECOND = {
    "kullm": "\n\n### 명령어:\n내일은?\n\n### 응답:\n",
    "kullm-input": "\n\n### 명령어:\n내일은?\n\n### 응답:\n",
    "vaiv-reward": "\n\n ### 명령어:\n내일은?\n\n ### 응답:\n",
    "polyglot-chat": "\n\n### 사용자:\n내일은?\n\n### 챗봇:\n",
}
INPUT = {
    "kullm": f"{PLAIN}\n\n### 명령어:\n요약해 줘\n\n어제는 비가 왔다.\n\n### 응답:\n",
    "kullm-input": f"{PAIRED}\n\n### 명령어:\n요약해 줘\n\n### 입력:\n어제는 비가 왔다.\n\n### 응답:\n",
    "vaiv-reward": f"{PLAIN} \n\n ### 명령어:\n요약해 줘\n\n어제는 비가 왔다.\n\n ### 응답:\n",
    "polyglot-chat": "### 사용자:\n요약해 줘\n\n어제는 비가 왔다.\n\n### 챗봇:\n",
}
WITH_SYSTEM = {
    "kullm": f"{PLAIN}\n\n너는 친절한 챗봇이다.\n\n### 명령어:\n오늘 날씨 어때?\n\n### 응답:\n",
    "kullm-input": f"{PLAIN}\n\n너는 친절한 챗봇이다.\n\n### 명령어:\n오늘 날씨 어때?\n\n### 응답:\n",
    "vaiv-reward": f"{PLAIN} \n\n너는 친절한 챗봇이다.\n\n ### 명령어:\n오늘 날씨 어때?\n\n ### 응답:\n",
    "polyglot-chat": "너는 친절한 챗봇이다.\n\n### 사용자:\n오늘 날씨 어때?\n\n### 챗봇:\n",
}
presets = pytest.mark.parametrize("name", sorted(PRESETS))


def pieces(name: str, *messages: Message, open_answer: bool = False) -> list[TextSpan]:
    return render_pieces(PRESETS[name], messages, SPECIAL, open_answer=open_answer)


def test_the_presets_are_these():
    assert sorted(PRESETS) == sorted(SINGLE)


@presets
def test_single_turn(name):
    assert pieces(name, ASK, ANSWER) == [TextSpan(SINGLE[name], False), TextSpan("맑고 따뜻해요. 뷁" + EOS, True)]


@presets
def test_prompt_with_input(name):
    assert pieces(name, WITH_INPUT, ANSWER) == [TextSpan(INPUT[name], False), TextSpan("맑고 따뜻해요. 뷁" + EOS, True)]


@presets
def test_multi_turn(name):
    assert pieces(name, ASK, ANSWER, MORE, LAST) == [
        TextSpan(SINGLE[name], False),
        TextSpan("맑고 따뜻해요. 뷁" + EOS, True),
        TextSpan(SECOND[name], False),
        TextSpan("비가 온대요 ☔" + EOS, True),
    ]


@presets
def test_system_turn(name):
    assert pieces(name, SYSTEM, ASK, ANSWER)[0] == TextSpan(WITH_SYSTEM[name], False)


@presets
@pytest.mark.parametrize(
    "before",
    [(ASK,), (SYSTEM, ASK), (WITH_INPUT,), (ASK, ANSWER, MORE), (SYSTEM, WITH_INPUT, ANSWER, MORE)],
    ids=["single", "system", "input", "multi", "all"],
)
def test_generation_prompt_is_the_training_prefix(name, before):
    opening = pieces(name, *before, open_answer=True)
    assert pieces(name, *before, LAST) == [*opening, TextSpan(LAST.content + EOS, True)]


@presets
@pytest.mark.parametrize(
    "messages", [(ASK, ANSWER), (SYSTEM, ASK, ANSWER, MORE, LAST), (WITH_INPUT, ANSWER, MORE, LAST)]
)
def test_transformers_renders_the_same_text(name, messages, tiny_tokenizer_dir):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    tokenizer.chat_template = PRESETS[name]
    rows = []
    for message in messages:
        row = {"role": message.role, "content": message.content}
        if message.input and name == "kullm-input":
            row["input"] = message.input
        elif message.input:
            row["content"] += f"\n\n{message.input}"
        rows.append(row)  # most rows have no "input" key at all, as other programs write them
    whole = tokenizer.apply_chat_template(rows, tokenize=False)
    assert whole == "".join(piece.text for piece in pieces(name, *messages))
    opening = tokenizer.apply_chat_template(rows[:-1], tokenize=False, add_generation_prompt=True)
    assert opening == "".join(piece.text for piece in pieces(name, *messages[:-1], open_answer=True))


def test_text_is_not_escaped_or_trimmed():
    text = "  <b>&amp;</b> {{ '이스케이프' }} \"따옴표\"\\n\t"
    assert pieces("kullm", ASK, Message("assistant", text))[1].text == text + EOS
    assert pieces("kullm", Message("user", text), ANSWER)[0].text == f"{PLAIN}\n\n### 명령어:\n{text}\n\n### 응답:\n"


# The audit


@presets
def test_presets_pass_their_audit(name):
    audit_template(PRESETS[name], EOS)


def chat(
    answer: str = "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}", opening: str = "봇:"
) -> str:
    return (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}봇:" + answer + "{% else %}"
        "사람:{{ message['content'] + '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
        + opening
        + "{% endif %}"
    )


def test_the_template_the_refused_ones_vary_is_good():
    audit_template(chat(), EOS)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("{% generation %}{{ message['content'] }}{% endgeneration %}{{ eos_token }}", "EOS after the span"),
        ("{% generation %}{{ message['content'] }}{% endgeneration %}", "no EOS"),
        ("{{ message['content'] }}{% generation %}{{ eos_token }}{% endgeneration %}", "the answer before the span"),
        ("{% generation %}{{ message['content'] + eos_token + eos_token }}{% endgeneration %}", "EOS twice"),
        (
            "{% generation %}{{ message['content'] + eos_token + '\n' }}{% endgeneration %}",
            "a newline learnt after EOS",
        ),
        ("{% generation %}{{ message['content'] + ' ' + eos_token }}{% endgeneration %}", "a space before EOS"),
        ("{% generation %}{{ message['content'][:-1] + eos_token }}{% endgeneration %}", "the last character lost"),
        (
            "{% if loop.last %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
            "{% else %}{{ message['content'] + eos_token }}{% endif %}",
            "the last answer only",
        ),
    ],
)
def test_audit_refuses_wrong_spans(answer, why):
    with pytest.raises(TemplateError, match="generation spans of the template contain") as caught:
        audit_template(chat(answer), EOS)
    assert "{% generation %}" in caught.value.fix, why


@pytest.mark.parametrize("opening", ["", "봇: ", "AI:", "봇:\n"])
def test_audit_refuses_another_prompt_than_in_training(opening):
    with pytest.raises(TemplateError, match="differs from the prompt in training"):
        audit_template(chat(opening=opening), EOS)


def test_audit_refuses_a_prompt_that_changes_when_an_answer_follows():
    changing = "{% if messages | length > 1 %}대화:\n{% endif %}" + chat()
    with pytest.raises(TemplateError, match="differs from the prompt in training"):
        audit_template(changing, EOS)


@pytest.mark.parametrize("source", ["{% for %}", "{{ raise_exception('안 됨') }}"])
def test_a_template_that_fails_is_named(source):
    with pytest.raises(TemplateError, match="the chat template fails"):
        audit_template(source, EOS)


# Where templates come from


def test_template_by_name_file_and_source(tmp_path):
    assert template_text("kullm") == PRESETS["kullm"]
    (tmp_path / "mine.jinja").write_text(chat(), encoding="utf-8")
    assert template_text(str(tmp_path / "mine.jinja")) == chat()
    assert template_text(chat()) == chat()


def test_an_unknown_template_names_the_known_ones():
    with pytest.raises(TemplateError, match="no chat template 'kulm'") as caught:
        template_text("kulm")
    assert all(name in caught.value.expected for name in SINGLE)
