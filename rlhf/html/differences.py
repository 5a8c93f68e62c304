"""Words in which one text differs from another."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from markupsafe import Markup, escape

_WORD = re.compile(r"\s+|[^\s]+")
MAX_WORDS = 1500  # of one text; longer ones are shown without marks
MIN_SHARED = 0.25  # share of words two texts have in common; with fewer everything would be marked


def marked_difference(text: str, other: str) -> Markup:
    """`text` escaped; words that `other` does not have at that place are in <mark>."""
    words, others = _WORD.findall(text), _WORD.findall(other)
    if not words or text == other or max(len(words), len(others)) > MAX_WORDS:
        return escape(text)
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    shared = sum(
        bool(word.strip()) for block in matcher.get_matching_blocks() for word in words[block.a :][: block.size]
    )
    if shared < MIN_SHARED * sum(bool(word.strip()) for word in words):
        return escape(text)
    parts = []
    for kind, start, end, _, _ in matcher.get_opcodes():
        piece = "".join(words[start:end])
        plain = kind == "equal" or not piece.strip()
        parts.append(escape(piece) if plain else Markup("<mark>{}</mark>").format(piece))
    return Markup("").join(parts)
