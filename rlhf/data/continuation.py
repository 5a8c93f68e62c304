"""Ids of a piece of text that continues another, as they are within the whole.

SentencePiece tokenizers put a space before a text. Pieces of one sequence are tokenised apart, so that a prompt has the
same ids whether an answer follows or not; without care each piece would begin with a space that the whole does not
have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer


class PieceTokenizer:
    """Tokenises the pieces of one sequence, in order.

    Args:
        tokenizer: of transformers.
        special_texts: the texts of its special tokens.
    """

    def __init__(self, tokenizer: Any, special_texts: Sequence[str]) -> None:
        self._tokenizer, self._special = tokenizer, tuple(text for text in special_texts if text)
        self._bare = without_prefix(tokenizer)

    def ids(self, pieces: Sequence[str]) -> list[list[int]]:
        """The ids of each piece; the first begins a text, each other one continues the piece before it."""
        if self._bare is None or len(pieces) < 2:
            return self._plain(pieces)
        first, *rest = pieces
        found = self._plain([first])
        for before, piece in zip(pieces, rest, strict=False):
            found.append(self._after_special(piece) if before.endswith(self._special) else self._after_text(piece))
        return found

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return ids

    def _after_special(self, piece: str) -> list[int]:
        (ids,) = self._plain([self._special[0] + piece])
        return ids[1:]

    def _after_text(self, piece: str) -> list[int]:
        """Bare up to its first special token, from there on as the tokenizer reads it."""
        assert self._bare is not None
        place = min((at for text in self._special if (at := piece.find(text)) >= 0), default=len(piece))
        ids = self._bare.encode(piece[:place], add_special_tokens=False).ids
        return [*ids, *(self._plain([piece[place:]])[0] if place < len(piece) else [])]


def without_prefix(tokenizer: Any) -> Tokenizer | None:
    """The same tokenizer without the space that it puts before a text; None where it puts none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole = json.loads(backend.to_str())
    bare = {**whole, **{part: _bare(whole.get(part)) for part in ("normalizer", "pre_tokenizer")}}
    return None if bare == whole else Tokenizer.from_str(json.dumps(bare))


def _bare(part: Any) -> Any:
    """A normalizer or pre-tokenizer without what adds a space in front."""
    if not isinstance(part, dict):
        return part
    if part["type"] == "Prepend":
        return None
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            return {**part, name: [bare for each in part[name] if (bare := _bare(each)) is not None]}
    return part
