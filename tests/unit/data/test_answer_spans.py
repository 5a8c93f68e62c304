"""Templates without generation spans, in the shapes that instruct models ship: where answers begin and end."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf.data.encode import Encoder
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.tokenizer import ChatTokenizer, audited
from rlhf.demo.tiny_base import train_tokenizer
from rlhf.errors import DataError, TemplateError
from tests.conftest import TEXTS, VOCABULARY

OPEN = "{% if add_generation_prompt %}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    + OPEN + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML
)
HEADERS = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|head|>' + message['role']"
    " + '<|tail|>\n\n' + message['content'] | trim + '<|eot|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + "
    "content %}{% endif %}{{ content }}{% endfor %}" + OPEN + "{{ '<|head|>assistant<|tail|>\n\n' }}{% endif %}"
)
DATED = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ bos_token + 'Today Date: ' + date_string + '\n' }}" + CHATML
)
TURNS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must "
    "alternate') }}{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}" + OPEN + "{{ '<start_of_turn>model\n' }}{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
THOUGHTS = (
    "{% set last = namespace(user=0) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set last.user = "
    "loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.index0 > last.user %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}" + OPEN + "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ '<|head|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    + OPEN + "{{ '<|head|>assistant\n' }}{% endif %}"
)  # fmt: skip
FORGETS = "{{ '<|im_start|>' + messages[-1]['content'] + '<|im_end|>' }}" + OPEN + "{{ '<|im_start|>' }}{% endif %}"
OTHER_PROMPT = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant: '")
MARKS = ("<|im_start|>", "<|im_end|>", "<|head|>", "<|tail|>", "<|eot|>", "<start_of_turn>", "<end_of_turn>", "<eos>")

FIRST, SECOND = "맑고 따뜻해요.", "비가 온대요 ☔"
TALK = (
    Message("user", "오늘 날씨 어때?"),
    Message("assistant", FIRST),
    Message("user", "내일은?"),
    Message("assistant", SECOND),
)
SYSTEM = Message("system", "너는 친절한 챗봇이다.")


def tokenizer_of(template) -> ChatTokenizer:
    made = train_tokenizer(TEXTS, VOCABULARY)
    ends = {"eos_token": "<eos>", "bos_token": "<|endoftext|>"}
    made.add_special_tokens({"additional_special_tokens": list(MARKS), **ends})
    made.chat_template = template
    return audited(made, None, where="model")


def learnt(tokenizer: ChatTokenizer, messages, **options) -> list[str]:
    """The texts that a demonstration trains on."""
    item = Encoder(tokenizer, 512, **options).demonstrations([Demonstration(tuple(messages))])[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], item.answer_mask, [False]]).astype(int)))
    return [tokenizer.tokenizer.decode(item.ids[a:b].tolist()) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("template", "end", "space"),
    [
        (CHATML, "<|im_end|>", ""),
        (DEFAULT_SYSTEM, "<|im_end|>", ""),
        (HEADERS, "<|eot|>", ""),
        (DATED, "<|im_end|>", ""),
        (TURNS, "<end_of_turn>", ""),
        (BRACKETS, "<eos>", " "),
        ({"default": CHATML, "tool_use": NO_END}, "<|im_end|>", ""),
    ],
    ids=["chatml", "default system", "headers", "dated", "turns", "brackets", "named"],
)
def test_answers_with_their_ends_and_nothing_else_are_learnt(template, end, space):
    tokenizer = tokenizer_of(template)
    assert tokenizer.tokenizer.eos_token == end
    assert tokenizer.eos_id == tokenizer.tokenizer.convert_tokens_to_ids(end)
    assert not tokenizer.history_changes
    assert learnt(tokenizer, TALK[:2]) == [space + FIRST + end]
    assert learnt(tokenizer, TALK) == [space + FIRST + end, space + SECOND + end]
    assert learnt(tokenizer, TALK, train_on="last") == [space + SECOND + end]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, HEADERS, DATED, TURNS, BRACKETS, THOUGHTS])
@pytest.mark.parametrize("system", [False, True])
def test_a_prompt_is_the_same_in_training_in_rankings_and_in_generation(template, system):
    tokenizer = tokenizer_of(template)
    head = (SYSTEM,) if system and template is not BRACKETS else ()
    for count in (1, 3):
        prompt = (*head, *TALK[:count])
        opened = Encoder(tokenizer, 512).prompts([Prompt(prompt)])[0].ids.tolist()
        row = Demonstration((*prompt, TALK[count]))
        item = Encoder(tokenizer, 512, train_on="last").demonstrations([row])[0]
        assert item.ids[: int(item.answer_mask.argmax())].tolist() == opened
        ranking = Encoder(tokenizer, 512).rankings([Ranking(prompt, ("네.", "아니요."), (1, 2))])[0]
        assert ranking.prompt.tolist() == opened
        assert all(answer[-1] == tokenizer.eos_id for answer in ranking.answers)
        whole = tokenizer.tokenizer.apply_chat_template(
            [{"role": each.role, "content": each.content} for each in row.messages],
            tokenize=False, enable_thinking=False, date_string="26 Jul 2024",
        )  # fmt: skip
        text = tokenizer.tokenizer.decode(item.ids.tolist())
        assert whole.startswith(text)
        assert not whole[len(text) :].strip()


def test_of_a_template_that_drops_earlier_thoughts_the_last_answer_alone_is_learnt():
    tokenizer = tokenizer_of(THOUGHTS)
    assert tokenizer.history_changes
    assert learnt(tokenizer, TALK[:2]) == [FIRST + "<|im_end|>"]
    assert learnt(tokenizer, TALK, train_on="last") == [SECOND + "<|im_end|>"]
    with pytest.raises(DataError, match=r"data\.train_on=last"):
        learnt(tokenizer, TALK)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (NO_END, "puts no special token after an answer"),
        (FORGETS, "leaves out an answer"),
        (OTHER_PROMPT, "prompt rendered for generation differs"),
    ],
)
def test_what_cannot_be_trained_right_is_refused_with_the_reason(template, said):
    with pytest.raises(TemplateError, match=said):
        tokenizer_of(template)


def test_the_date_stands_still():
    text = "".join(piece.text for piece in tokenizer_of(DATED).pieces(TALK[:1], open_answer=True))
    assert text.startswith("<|endoftext|>Today Date: 26 Jul 2024\n")


def test_what_was_decided_is_told():
    notes = tokenizer_of(THOUGHTS).notes
    assert "an answer is its text and <|im_end|>" in notes[0]
    assert "EOS is <|im_end|>, which ends an answer in the template, instead of <eos>" in notes[1]
    assert "only the last can be learnt" in notes[2]
    assert len(tokenizer_of(BRACKETS).notes) == 1
