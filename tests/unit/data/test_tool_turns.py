"""Calls of tools: read from rows, rendered where the template can, learnt only when asked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rlhf.data.encode import Encoder
from rlhf.data.formats import parse
from rlhf.data.records import Demonstration, Message
from rlhf.data.tokenizer import audited
from rlhf.demo.tiny_base import train_tokenizer
from rlhf.errors import DataError
from tests.conftest import TEXTS, VOCABULARY

CALL = {"id": "c1", "type": "function", "function": {"name": "날씨", "arguments": '{"도시": "서울"}'}}
TOOLS = [{"type": "function", "function": {"name": "날씨", "parameters": {"type": "object"}}}]
ROW = {
    "messages": [
        {"role": "user", "content": "서울 날씨?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "맑음"},
        {"role": "assistant", "content": "맑아요."},
    ],
    "tools": TOOLS,
}
OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
START = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% for m in messages %}{% if m.tool_calls %}"
)
END = (
    "{% elif m.role == 'tool' %}{{ '<|im_start|>user\n<result>' + m.content + '</result><|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}" + OPEN
)
OBJECTS = (  # Qwen 2.5
    START + "{{ '<|im_start|>assistant' }}{% for call in m.tool_calls %}{{ '\n<call>' + call.function.name + ' ' + "
    "(call.function.arguments | tojson) + '</call>' }}{% endfor %}{{ '<|im_end|>\n' }}" + END
)
TEXTS_OF_CALLS = (  # DeepSeek
    START + "{% if m.content is none %}{{ '<|im_start|>assistant' }}{% for call in m.tool_calls %}{{ '\n<call>' + "
    "call.function.name + ' ' + call.function.arguments + '</call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}" + END
)
CALLED = '<|im_start|>assistant\n<call>날씨 {"도시": "서울"}</call><|im_end|>\n'
ANSWERED = "<|im_start|>user\n<result>맑음</result><|im_end|>\n<|im_start|>assistant\n"
OFFERED = f"<|im_start|>system\n{json.dumps(TOOLS[0], ensure_ascii=False)}<|im_end|>\n"
ASKED = OFFERED + "<|im_start|>user\n서울 날씨?<|im_end|>\n"


def tokenizer_of(template):
    made = train_tokenizer(TEXTS, VOCABULARY)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    if "{%" in template:
        made.chat_template = template
        return audited(made, None, where="model")
    return audited(made, template, where="model")


def record(row=ROW) -> Demonstration:
    found = parse(row, "messages", "표")
    assert isinstance(found, Demonstration)
    return found


def learnt(tokenizer, item) -> list[str]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], item.answer_mask, [False]]).astype(int)))
    return [tokenizer.tokenizer.decode(item.ids[a:b].tolist()) for a, b in edges.reshape(-1, 2)]


def test_calls_and_results_are_read_with_what_may_be_called():
    asked, called, result, answer = record().messages
    assert json.loads(asked.tools) == TOOLS
    assert json.loads(called.calls) == [{**CALL, "function": {"name": "날씨", "arguments": {"도시": "서울"}}}]
    assert (called.content, result.role, result.content, result.call_id) == ("", "tool", "맑음", "c1")
    assert (answer.content, answer.calls) == ("맑아요.", "")
    again = parse({"messages": [turn.as_row() for turn in record().messages]}, "messages", "표")
    assert again.messages == record().messages  # rows that are written again keep all of it


@pytest.mark.parametrize("template", [OBJECTS, TEXTS_OF_CALLS])
def test_a_call_is_read_and_learnt_only_when_asked(template):
    tokenizer = tokenizer_of(template)
    item = Encoder(tokenizer, 512).demonstrations([record()])[0]
    assert tokenizer.tokenizer.decode(item.ids.tolist()) == ASKED + CALLED + ANSWERED + "맑아요.<|im_end|>"
    assert learnt(tokenizer, item) == ["맑아요.<|im_end|>"]
    item = Encoder(tokenizer, 512, learn_calls=True).demonstrations([record()])[0]
    call = '<call>날씨 {"도시": "서울"}</call><|im_end|>'
    assert learnt(tokenizer, item) == [call, "맑아요.<|im_end|>"]
    ids = tokenizer.tokenizer.apply_chat_template(
        [turn.as_row() | ({"tool_calls": json.loads(turn.calls)} if turn.calls else {}) for turn in record().messages],
        tools=TOOLS, return_dict=False,
    ) if template is OBJECTS else None  # fmt: skip
    assert ids is None or ids[: len(item)] == item.ids.tolist()


def test_a_call_of_weight_0_is_not_learnt_even_when_asked():
    row = {**ROW, "messages": [ROW["messages"][0], {**ROW["messages"][1], "weight": 0}, *ROW["messages"][2:]]}
    tokenizer = tokenizer_of(OBJECTS)
    item = Encoder(tokenizer, 512, learn_calls=True).demonstrations([record(row)])[0]
    assert learnt(tokenizer, item) == ["맑아요.<|im_end|>"]


def test_a_row_that_ends_in_a_call_is_refused_until_calls_are_learnt():
    row = {**ROW, "messages": ROW["messages"][:2]}
    tokenizer = tokenizer_of(OBJECTS)
    with pytest.raises(DataError, match="only calls tools") as caught:
        Encoder(tokenizer, 512).demonstrations([record(row)])
    assert "data.learn_tool_calls=true" in caught.value.fix
    item = Encoder(tokenizer, 512, learn_calls=True).demonstrations([record(row)])[0]
    assert learnt(tokenizer, item) == ['<call>날씨 {"도시": "서울"}</call><|im_end|>']


@pytest.mark.parametrize("template", ["kullm", "chatml", "polyglot-chat"])
def test_a_template_without_tools_is_an_error_and_no_answer_by_a_tool(template):
    with pytest.raises(DataError, match="does not write the functions that may be called: 날씨") as caught:
        Encoder(tokenizer_of(template), 512).demonstrations([record()])
    assert "ignore: [tools]" in caught.value.fix
    plain = parse(ROW, "messages", "표", ignore=("tools",))
    with pytest.raises(DataError, match="does not write calls of tools: 날씨"):
        Encoder(tokenizer_of(template), 512).demonstrations([plain])


def test_of_a_long_conversation_whole_exchanges_go_and_what_may_be_called_stays():
    talk = [*ROW["messages"], {"role": "user", "content": "고마워!"}, {"role": "assistant", "content": "네!"}]
    tokenizer = tokenizer_of(OBJECTS)
    whole = Encoder(tokenizer, 512).demonstrations([record({**ROW, "messages": talk})])[0]
    encoder = Encoder(tokenizer, len(whole) - 1)
    short = encoder.demonstrations([record({**ROW, "messages": talk})])[0]
    assert encoder.report.rows_with_dropped_turns == 1
    text = tokenizer.tokenizer.decode(short.ids.tolist())
    assert text == OFFERED + "<|im_start|>user\n고마워!<|im_end|>\n<|im_start|>assistant\n네!<|im_end|>"


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ([ROW["messages"][0], ROW["messages"][2]], "by tool instead of assistant"),
        ([*ROW["messages"][:2], ROW["messages"][3]], "by assistant instead of tool"),
        ([*ROW["messages"][:3], ROW["messages"][0]], "by user instead of assistant or tool"),
        ([ROW["messages"][0], {**ROW["messages"][1], "tool_calls": [{"name": "날씨"}]}], "no list of calls"),
        (
            [ROW["messages"][0], {"role": "assistant", "tool_calls": [{"function": {"name": "셈", "arguments": "3"}}]}],
            "no JSON object",
        ),
    ],
)
def test_calls_out_of_order_or_of_another_shape_are_refused(turns, problem):
    with pytest.raises(DataError, match=problem):
        parse({"messages": turns}, "messages", "표")


def test_special_text_within_a_call_is_removed():
    forged = Message("assistant", "", calls=json.dumps([CALL | {"id": "<|im_end|>x"}], ensure_ascii=False))
    row = Demonstration((Message("user", "응?"), forged, Message("tool", "맑음"), Message("assistant", "네.")))
    encoder = Encoder(tokenizer_of(OBJECTS), 512)
    encoder.demonstrations([row])
    assert encoder.report.special_texts_removed == 1
