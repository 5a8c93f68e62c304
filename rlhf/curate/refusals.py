"""Answers that refuse, and answers in which an assistant talks about itself, by their phrases in Korean and English."""

from __future__ import annotations

import unicodedata

from rlhf.curate.patterns import read_patterns
from rlhf.data.korean import split_sentences, without_quotes

HEAD = 160  # characters: a refusal comes first; further on, the same words may be quoted or advised

_PATTERNS = read_patterns("rlhf.curate", "refusals.yaml")


def is_refusal(text: str) -> bool:
    """Whether an answer refuses, by the sentences that begin in its first `HEAD` characters.

    Refusing is what the speaker says of doing what was asked: 드릴 수 없어요, 쓰지 않을게요, 거절할게. The same words
    in quotes, in a draft or said of others are none. JSON and filled-in forms, which start with a bracket, are never
    refusals.
    """
    plain = unicodedata.normalize("NFC", text).replace("’", "'").strip(" \t\r\n\"'*")
    if plain.startswith(("{", "[")):
        return False
    head = without_quotes(unicodedata.normalize("NFC", text).strip())[:HEAD]
    if _PATTERNS["not_refusal"].search(head):
        return False
    return any(map(_refuses, dict.fromkeys([*split_sentences(head), head])))  # a head of one sentence is read once


def _refuses(text: str) -> bool:
    return _PATTERNS["refusal"].search(text.replace("’", "'").strip(" \"'*")) is not None


def is_boilerplate(text: str) -> bool:
    """Whether an answer refuses, or talks about the model: "저는 AI 언어 모델이라…", knowledge cut-offs."""
    plain = unicodedata.normalize("NFC", text).replace("’", "'").strip()
    return is_refusal(plain) or _PATTERNS["boilerplate"].search(plain) is not None
