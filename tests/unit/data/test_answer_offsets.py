"""Offsets in an answer's text land on tokens: Korean of several bytes, tokens of several characters, broken bytes."""

from __future__ import annotations

import pytest

from rlhf.data.answer_offsets import tokens_at
from rlhf.data.tokenizer import ChatTokenizer

TEXTS = ("안녕하세요? 뷁쉙 값어치, 닭볶음탕!", "네 👩‍👩‍👧 좋아요 ㅋㅋㅋ", "e-mail은 3시 반에.")


def bytes_of(tokenizer: ChatTokenizer, ids: list[int]) -> list[int]:
    """Bytes in each token: a byte-level vocabulary writes one letter for each."""
    return [len(token) for token in tokenizer.tokenizer.convert_ids_to_tokens(ids)]


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_lands_on_the_token_of_its_last_byte(chat_tokenizer: ChatTokenizer, text: str) -> None:
    """The reference counts bytes: an offset's last byte is in the first token whose end is not before it."""
    (ids,) = chat_tokenizer.token_ids([text])
    sizes = bytes_of(chat_tokenizer, ids)
    ends = [sum(sizes[: token + 1]) for token in range(len(ids))]
    assert min(sizes) == 1 < max(sizes)  # characters in parts, and tokens of several bytes
    offsets = list(range(1, len(text) + 1))
    last_bytes = [len(text[:offset].encode()) for offset in offsets]
    expected = [next(token for token, end in enumerate(ends) if end >= last) for last in last_bytes]
    assert tokens_at(ids, offsets, chat_tokenizer.text) == expected
    assert [tokens_at(ids, [offset], chat_tokenizer.text)[0] for offset in offsets] == expected


def test_special_tokens_hold_no_character(chat_tokenizer: ChatTokenizer) -> None:
    first, second = chat_tokenizer.token_ids(["뷁", "쉙"])
    ids = [chat_tokenizer.eos_id, *first, chat_tokenizer.eos_id, *second, chat_tokenizer.eos_id]
    assert chat_tokenizer.text(ids) == "뷁쉙"
    assert tokens_at(ids, [1, 2], chat_tokenizer.text) == [len(first), len(ids) - 2]


def test_an_answer_that_was_cut_inside_a_character(chat_tokenizer: ChatTokenizer) -> None:
    """Two of three bytes are one U+FFFD, which is there from the first of them on."""
    (ids,) = chat_tokenizer.token_ids(["네뷁"])
    (start,) = chat_tokenizer.token_ids(["네"])
    cut = ids[:-1]
    assert chat_tokenizer.text(cut) == "네\ufffd"
    assert len(cut) == len(start) + 2
    assert tokens_at(cut, [1, 2], chat_tokenizer.text) == [len(start) - 1, len(start)]
