"""A single token as bytes and as text; decoding alone would lose tokens that are parts of a character."""

from __future__ import annotations

import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
WORD_BOUNDARY = "▁"  # how sentencepiece writes a space


class TokenTexts:
    """The bytes of one tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = backend is not None and "ByteLevel" in str(backend.decoder)
        self._bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}  # GPT-2's alphabet
        self._special = {str(token) for token in tokenizer.added_tokens_decoder.values()}

    def bytes_of(self, token: int) -> bytes:
        """UTF-8 of the token's text, or of a part of a character."""
        text = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:
            return b""
        if text in self._special:
            return str(text).encode()
        if self._byte_level:
            return bytes(self._bytes_of[character] for character in text if character in self._bytes_of)
        if match := _BYTE.fullmatch(text):
            return bytes([int(match[1], 16)])
        return str(text).replace(WORD_BOUNDARY, " ").encode()

    def text_of(self, token: int) -> str:
        r"""The token's text; bytes that form no whole character are written as \xea\xb0."""
        return self.bytes_of(token).decode("utf-8", errors="backslashreplace")
