"""Faults that a reader does not see, found and removed: special tokens, invisible characters, wrong encodings.

Nearly all texts have none: a single regular expression sorts them out, and only the rest is examined closely.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>"
    r"|</?s>|<(?:pad|bos|eos|unk|mask|start_of_turn|end_of_turn)>|\[(?:PAD|UNK|CLS|SEP|BOS|EOS|MASK)\]|\[/?INST\]"
    r"|<</?SYS>>|^###\s*(?:명령어|응답|입력|사용자|챗봇|Instruction|Response|Input|Human|Assistant)\s*:",
    re.MULTILINE,
)
_EMOJI_PART = "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f"
# A joiner between two emoji is kept: it makes one emoji of the two. Unicode calls the invisible fillers letters.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\u3164\ufeff\uffa0]"
    f"|(?<![{_EMOJI_PART}\u2640\u2642])\u200d|\u200d(?![{_EMOJI_PART}\u2640\u2642])"
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufff9-\ufffc\ufdd0-\ufdef\ufffe\uffff]")
_CP1252 = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_OUTSIDE_KSX1001 = "".join(
    syllable
    for syllable in map(chr, range(0xAC00, 0xD7A4))
    if len(syllable.encode("euc_kr", errors="ignore")) != 2  # two bytes, or nothing
)
_RARE = re.compile(f"[{_OUTSIDE_KSX1001}]")
MOJIBAKE = re.compile(
    "\ufffd"  # a byte that could not be decoded
    "|占쏙옙|占쎌"  # that character, written as UTF-8 and read as CP949
    f"|[ê-í][{_CP1252}][{_CP1252}]"  # Hangul in UTF-8 read as Windows-1252
    "|â€[™œ˜¦\u009d“”]"  # quotes in UTF-8 read as Windows-1252
    r"|(?=.{0,5}[À-È])(?![\u00b7°]{2})(?:[\u00b0-\u00c8][\u00a1-\u00fe]){3}"  # Hangul in CP949 read as Latin-1
)
# UTF-8 read as CP949 has many rare syllables; fewer than these may be slang or an invented word.
MIN_RARE = 4
MAX_RARE_SHARE = 0.2  # of the Hangul
_HANGUL = re.compile("[가-힣]")
_SUSPICIOUS = re.compile(
    "[<\\[\ufffd\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufff9-\uffff\ufdd0-\ufdef占âê-í"
    f"\u00b0-\u00c8{_OUTSIDE_KSX1001}]|###"
)


class TextFault(NamedTuple):
    """A kind of fault, by its code in `findings.RULES`, and its first occurrence for display."""

    code: str
    detail: str


def text_faults(text: str, special_texts: Iterable[str] = ()) -> list[TextFault]:
    """The kinds of fault in `text`, each once.

    `special_texts` are the special tokens of the tokenizer in use, searched for besides the well-known ones.
    """
    found = (
        [] if text.isascii() or unicodedata.is_normalized("NFC", text) else [TextFault("not-nfc", _decomposed(text))]
    )
    special = next((special for special in special_texts if special in text), "")
    if _SUSPICIOUS.search(text) is None:
        return [*found, TextFault("special-token", repr(special))] if special else found
    if not special and (match := SPECIAL.search(text)):
        special = match.group()
    if special:
        found.append(TextFault("special-token", repr(special)))
    for code, pattern in (("invisible", INVISIBLE), ("control", CONTROL)):
        if match := pattern.search(text):
            found.append(TextFault(code, name_of(match.group())))
    if match := MOJIBAKE.search(text):
        found.append(TextFault("mojibake", repr(text[max(0, match.start() - 5) : match.end() + 15])))
    elif rare := _many_rare(text):
        found.append(TextFault("mojibake", f"rare syllables {rare!r}"))
    if shows_nothing(text):
        found.append(TextFault("shows-nothing", ascii(text[:20])))
    return found


def shows_nothing(text: str) -> bool:
    """Whether a text that is not empty has nothing but special tokens and invisible characters."""
    return bool(text.strip()) and not _visible(SPECIAL.sub("", text))


def cleaned(text: str) -> str:
    """NFC, without special tokens, invisible and control characters, and without outer whitespace.

    Whole tokens are removed wherever they stand: `text.strip("<|endoftext|>")` would eat letters of the answer and
    miss tokens inside it. Headings of templates (### 응답:) stay: without them two turns would run into one.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return _visible(SPECIAL.sub(lambda found: found.group() if found.group().startswith("#") else "", text))


def _visible(text: str) -> str:
    return CONTROL.sub("", INVISIBLE.sub("", text)).strip()


def name_of(character: str) -> str:
    """A character by number and name: U+200B ZERO WIDTH SPACE."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()


def _decomposed(text: str) -> str:
    """The first word that is not NFC."""
    return next((repr(word[:20]) for word in text.split() if not unicodedata.is_normalized("NFC", word)), "")


def _many_rare(text: str) -> str:
    rare = _RARE.findall(text)
    if len(rare) >= MIN_RARE and len(rare) > MAX_RARE_SHARE * len(_HANGUL.findall(text)):
        return "".join(rare[:8])
    return ""
