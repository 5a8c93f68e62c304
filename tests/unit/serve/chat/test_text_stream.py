"""Text that leaves token by token, against whole decodes and texts written out here."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models

from rlhf.serve.chat.text_stream import TextStream
from rlhf.serve.chat.token_text import TokenTexts

TEXT = "뷁쉙 값어치 닭볶음탕 3시 반, e-mail 🙂 끝!"


def pushed(stream: TextStream, tokens) -> list[str]:
    return [stream.push(token) for token in tokens]


def bytes_only(data) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(data).decode("utf-8", errors="replace")


def test_a_character_waits_for_its_last_byte():
    data = "가🙂a".encode()  # 3 bytes, 4 bytes, 1 byte
    assert pushed(TextStream(bytes_only), data) == ["", "", "가", "", "", "", "🙂", "a"]


def test_bytes_that_never_become_a_character_are_left_out():
    stream = TextStream(bytes_only)
    half = "가".encode()[:2]
    assert "".join(pushed(stream, [*half, *"나".encode(), *half])) + stream.finish() == "나"


def test_a_token_may_end_one_character_and_begin_the_next():
    parts = [b"\xea\xb0", b"\x80\xeb\x82", b"\x98"]  # 가 나

    def decode(ids) -> str:
        return b"".join(parts[number] for number in ids).decode("utf-8", errors="replace")

    assert pushed(TextStream(decode), [0, 1, 2]) == ["", "가", "나"]


def test_the_streamed_text_is_the_whole_text(chat_tokenizer):
    """Rare syllables are three tokens each in this vocabulary; the window is shortened many times."""
    ids = chat_tokenizer.token_ids([TEXT * 5])[0]
    assert len(ids) > len(TEXT * 5)
    stream = TextStream(chat_tokenizer.text)
    pieces = pushed(stream, ids)
    assert "".join(pieces) + stream.finish() == TEXT * 5
    assert len([piece for piece in pieces if piece]) > len(TEXT)


def test_byte_fallback_and_word_boundaries_of_sentencepiece():
    """A first token loses its space, and bytes in a row are read together: both depend on what stands before."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁안녕": 256, "하세요": 257, "▁또": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    ids = [256, 257, *"뷁쉙".encode(), 258, 257, 258, *"뷁".encode(), 256, 258, 258]
    expected = "안녕하세요뷁쉙 또하세요 또뷁 안녕 또 또"
    assert tokenizer.decode(ids) == expected
    stream = TextStream(lambda window: tokenizer.decode(list(window)))
    assert "".join(pushed(stream, ids)) + stream.finish() == expected


def test_a_stop_text_ends_the_text_before_itself():
    stream = TextStream(bytes_only, ["끝", "###"])
    pieces = pushed(stream, "가##나##끝#".encode())
    assert "".join(pieces) == "가##나##"
    assert stream.stopped
    assert stream.finish() == ""
    assert stream.num_released == 6


def test_what_may_begin_a_stop_text_is_held_back():
    stream = TextStream(bytes_only, ["ab!"])
    assert pushed(stream, b"xaab") == ["x", "", "a", ""]
    assert stream.finish() == "ab"


@pytest.mark.parametrize("text", ["가뷁", " a", "<|endoftext|>"])
def test_bytes_of_tokens_make_up_the_text(chat_tokenizer, text):
    texts = TokenTexts(chat_tokenizer.tokenizer)
    ids = chat_tokenizer.token_ids([text])[0]
    assert b"".join(map(texts.bytes_of, ids)) == text.encode()
    whole = "".join(texts.text_of(token) for token in ids)
    assert text == whole or "\\x" in whole
    assert "\N{REPLACEMENT CHARACTER}" not in whole
