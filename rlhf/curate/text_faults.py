"""Faults that a reader does not see, found and removed: special tokens, invisible characters, wrong encodings.

Nearly all texts have none: the pattern `suspicious` sorts them out, and only the rest is examined closely.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from rlhf.curate.patterns import read_patterns

_OUTSIDE_KSX1001 = frozenset(
    syllable
    for syllable in map(chr, range(0xAC00, 0xD7A4))
    if len(syllable.encode("euc_kr", errors="ignore")) != 2  # two bytes, or nothing
)
_PATTERNS = read_patterns("rlhf.curate", "text_faults.yaml", rare="".join(sorted(_OUTSIDE_KSX1001)))
# UTF-8 read as CP949 has many rare syllables; fewer than these may be slang or an invented word.
MIN_RARE = 4
MAX_RARE_SHARE = 0.2  # of the Hangul


class TextFault(NamedTuple):
    """A kind of fault, by its code in `findings.RULES`, and its first occurrence for display."""

    code: str
    detail: str


def text_faults(text: str, special_texts: Iterable[str] = ()) -> list[TextFault]:
    """The kinds of fault in `text`, each once.

    `special_texts` are the special tokens of the tokenizer in use, searched for besides the well-known ones.
    """
    found = []
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        words = (repr(word[:20]) for word in text.split() if not unicodedata.is_normalized("NFC", word))
        found.append(TextFault("not-nfc", next(words, "")))  # some spaces have another form, too
    special = next((special for special in special_texts if special in text), "")
    if _PATTERNS["suspicious"].search(text) is None:
        return [*found, TextFault("special-token", repr(special))] if special else found
    if not special and (match := _PATTERNS["special"].search(text)):
        special = match.group()
    if special:
        found.append(TextFault("special-token", repr(special)))
    for code in ("invisible", "control"):
        if match := _PATTERNS[code].search(text):
            name = unicodedata.name(match[0], "")
            found.append(TextFault(code, f"U+{ord(match[0]):04X} {name}".strip()))
    if match := _PATTERNS["mojibake"].search(text):
        found.append(TextFault("mojibake", repr(text[max(0, match.start() - 5) : match.end() + 15])))
    elif rare := _many_rare(text):
        found.append(TextFault("mojibake", f"rare syllables {rare!r}"))
    if text.strip() and not _visible(_PATTERNS["special"].sub("", text)):
        found.append(TextFault("shows-nothing", ascii(text[:20])))
    return found


def cleaned(text: str) -> str:
    """NFC, without special tokens, invisible and control characters, and without outer whitespace.

    Whole tokens are removed wherever they stand: `text.strip("<|endoftext|>")` would eat letters of the answer and
    miss tokens inside it. Headings of templates (### 응답:) stay: without them two turns would run into one.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if _PATTERNS["suspicious"].search(text) is None:
        return text.strip()
    return _visible(_PATTERNS["special"].sub(lambda found: found[0] if found[0].startswith("#") else "", text))


def _visible(text: str) -> str:
    return _PATTERNS["control"].sub("", _PATTERNS["invisible"].sub("", text)).strip()


def _many_rare(text: str) -> str:
    rare = [character for character in text if character in _OUTSIDE_KSX1001]
    if len(rare) >= MIN_RARE and len(rare) > MAX_RARE_SHARE * sum("가" <= character <= "힣" for character in text):
        return "".join(rare[:8])
    return ""
