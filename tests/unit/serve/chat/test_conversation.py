"""A conversation in the terminal."""

from __future__ import annotations

import pytest

from rlhf.cli.chat import talk
from rlhf.config.sections import SamplingSection
from rlhf.data.records import Message
from rlhf.errors import ConfigError, ModelError
from rlhf.serve.chat.conversation import ChatModel, Conversation


@pytest.fixture(scope="module")
def model(tiny_neox) -> ChatModel:
    sampling = SamplingSection(max_new_tokens=20, temperature=0.9)
    return ChatModel.load(str(tiny_neox), sampling, seed=5, template="kullm")


def reading(*lines: str):
    left = list(lines)

    def read() -> str:
        if not left:
            raise EOFError
        line = left.pop(0)
        if line == "^C":
            raise KeyboardInterrupt
        return line

    return read


def test_a_conversation_grows_and_is_forgotten(model):
    shown: list[str] = []
    conversation = Conversation(model)
    talk(conversation, reading("안녕하세요?", "", "^C", "또 봐요.", "/quit", "never read"), shown.append)
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"] * 2
    assert conversation.turns[2] == Message("user", "또 봐요.")
    assert conversation.turns[1].content in "".join(shown)
    talk(conversation, reading("/reset"), shown.append)
    assert conversation.turns == []
    again: list[str] = []
    talk(conversation, reading("안녕하세요?"), again.append)
    assert "".join(again).strip() == "".join(shown).split("\n")[0].strip()  # the seed decides


def test_instructions_and_history_are_read_by_the_model(model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        ChatModel, "answer", lambda self, messages, turn: asked.append((messages, turn)) or iter(["네."])
    )
    conversation = Conversation(model)
    talk(conversation, reading("하나", "둘", "/system 짧게 답하세요.", "셋"), lambda text: None)
    assert asked == [
        ([Message("user", "하나")], 0),
        ([Message("user", "하나"), Message("assistant", "네."), Message("user", "둘")], 1),
        ([Message("system", "짧게 답하세요."), Message("user", "셋")], 0),
    ]


def test_an_interrupted_answer_is_kept_as_far_as_it_got(model, monkeypatch):
    def interrupted(self, messages, turn):
        yield "여기까지"
        raise KeyboardInterrupt

    monkeypatch.setattr(ChatModel, "answer", interrupted)
    shown: list[str] = []
    conversation = Conversation(model)
    talk(conversation, reading("말해 줘"), shown.append)
    assert "".join(shown).startswith("여기까지 (stopped)")
    assert conversation.turns[-1] == Message("assistant", "여기까지")


def test_what_leaves_no_room_or_is_pickled_is_refused(tiny_neox, tmp_path):
    with pytest.raises(ConfigError, match="no room"):
        ChatModel.load(str(tiny_neox), SamplingSection(max_new_tokens=256), seed=1, template="kullm")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelError, match="safetensors"):
        ChatModel.load(str(tmp_path), SamplingSection(), seed=1)
