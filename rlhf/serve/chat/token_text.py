"""A single token as bytes and as text, which for half a character is not what decoding gives."""

from __future__ import annotations

import re
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
WORD_BOUNDARY = "▁"  # how sentencepiece writes a space


class TokenTexts:
    """Bytes of the tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = backend is not None and "ByteLevel" in str(backend.decoder)
        self._bytes_of = _byte_alphabet() if self._byte_level else {}
        self._special = {str(token) for token in tokenizer.added_tokens_decoder.values()}

    def bytes_of(self, token: int) -> bytes:
        """UTF-8 of the token's text, or a part of a character's."""
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
        r"""The token's text; bytes that are no whole characters are written as \xea\xb0."""
        return self.bytes_of(token).decode("utf-8", errors="backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """Which byte each character of a byte-level vocabulary stands for (GPT-2's mapping)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
