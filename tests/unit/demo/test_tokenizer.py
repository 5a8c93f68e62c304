"""The tokenizer of the demo's base model: it keeps every text, and a thing is one token whatever particle follows."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from rlhf.demo.quickstart import BASE
from rlhf.demo.tiny_base import read_documents, train_tokenizer, whole_pieces
from rlhf.demo.world.grammar import filled, korean_world


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    data = ["demo:answers_train"]
    lines = {line for text in read_documents(data) for line in text.splitlines(keepends=True)}
    return train_tokenizer(sorted(lines), BASE.vocabulary, whole=whole_pieces(data))


def test_every_text_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    sentences = [*korean_world().sentences()][::17]
    for text in [*sentences, "뷁 쀍, 낯선 말!", "two  spaces\n\n and\ta tab", "이모지 🙂", "### 명령어:\n- 하나"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_thing_is_one_token_whatever_particle_follows(tokenizer: PreTrainedTokenizerFast) -> None:
    """Answers then copy it whole: a model this small cannot spell it."""
    found = [
        (thing, filled(text, thing))
        for talk in korean_world().talks
        for text in talk.templates
        for thing in talk.things
    ]
    sentences = tokenizer([text for _, text in found])["input_ids"]
    for (thing, text), ids in zip(found, sentences, strict=True):
        (alone,) = tokenizer(thing)["input_ids"]
        assert alone in ids, text


def test_other_text_has_no_pieces_of_its_own() -> None:
    assert whole_pieces(["my.jsonl", "demo:handwritten_train"]) == ""
    assert whole_pieces(["my.jsonl", "demo:rankings_train"]) == korean_world().whole_things()


def test_a_thing_within_another_word_is_no_piece(tokenizer: PreTrainedTokenizerFast) -> None:
    """비 (rain) in 비빔밥, 춤 (dance) in 춤추다."""
    pieces = [
        [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        for text in ("비빔밥", "비가", "비")
    ]
    assert [len(each) for each in pieces] == [1, 2, 1]
