"""Answers that refuse, and answers in which an assistant talks about itself, by their phrases in Korean and English."""

from __future__ import annotations

import unicodedata

from rlhf.curate.patterns import read_patterns

HEAD = 160  # characters: a refusal comes first; further on, the same words may be quoted or advised

_PATTERNS = read_patterns("rlhf.curate", "refusals.yaml")


def is_refusal(text: str) -> bool:
    """Whether an answer refuses, by its first `HEAD` characters.

    A cheap heuristic: an apology counts only together with words for not being able to help. JSON and filled-in
    forms, which start with a bracket, are never refusals, whatever they quote.
    """
    head = unicodedata.normalize("NFC", text).replace("’", "'").strip(" \t\r\n\"'*")[:HEAD]
    return not head.startswith(("{", "[")) and _PATTERNS["refusal"].search(head) is not None


def is_boilerplate(text: str) -> bool:
    """Whether an answer refuses, or talks about the model: "저는 AI 언어 모델이라…", knowledge cut-offs."""
    plain = unicodedata.normalize("NFC", text).replace("’", "'").strip()
    return is_refusal(plain) or _PATTERNS["boilerplate"].search(plain) is not None
