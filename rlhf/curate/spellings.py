"""Hangul read through spellings that hide a word from a filter: parted jamo, look-alike letters, drawn-out vowels."""

from __future__ import annotations

import re
import unicodedata

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
# The vowel that a drawn-out one ends in: 벼엉, 꺄아.
_TAILS = dict(zip("ㅑㅒㅕㅖㅛㅠㅘㅙㅝㅞㅟㅢ", "ㅏㅐㅓㅔㅗㅜㅏㅐㅓㅔㅣㅣ", strict=True))
_SILENT = _INITIALS.index("ㅇ")
_FIRST, _PER_INITIAL, _PER_VOWEL = 0xAC00, 588, 28  # of the block of syllables: its start, and syllables per letter

_ALIKE = str.maketrans({"🐶": "개", "🐕": "개", "🐦": "새", "🐤": "새"})
_LOOKS_LIKE_GGI = re.compile("7{1,2}ㅣ")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe0f\ufeff]")
_NOT_HANGUL = re.compile(r"[^\u1100-\u11ff\u3130-\u318f가-힣\s]+")
# A syllable without a final, or an initial letter alone, then a vowel and perhaps a final, each typed as one letter.
_PARTED = re.compile(rf"([{_INITIALS}])([{_VOWELS}])(?!\2)(?<![ㅠㅜ](?![가-힣ㄱ-ㅎ]))([{_FINALS[1:]}](?![{_VOWELS}]))?")
_OPEN = re.compile("([가-힣])([ㄴㄹㅁㅇ])(?=[가-힣])")


def unified(text: str) -> str:
    """`text` in lower case and NFC, with full-width and styled letters as plain ones and jamo joined into syllables.

    ㅆㅣ발 and ㅅㅣㅂㅏㄹ become 씨발 and 시발; ㅅㅂ and ㅋㅋ, which hold no vowel, stay.
    """
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFC", text)).translate(_ALIKE)
    plain = _LOOKS_LIKE_GGI.sub("끼", plain)
    plain = _NOT_HANGUL.sub(lambda found: unicodedata.normalize("NFKC", found[0]), plain).lower()
    return _OPEN.sub(_closed, _PARTED.sub(_joined, plain))


def shortened(text: str) -> str:
    """`text` with drawn-out vowels as one: 시이이발 becomes 시발, 벼엉신 becomes 병신, 꺼어져 becomes 꺼져."""
    found: list[str] = []
    for letter in text:
        merged = _drawn_out(found[-1], letter) if found else None
        if merged is None:
            found.append(letter)
        else:
            found[-1] = merged
    return "".join(found)


def _joined(found: re.Match[str]) -> str:
    initial, vowel, final = found.groups(default=" ")
    return _syllable(_INITIALS.index(initial), _VOWELS.index(vowel), _FINALS.index(final))


def _closed(found: re.Match[str]) -> str:
    """조ㄴ나 as 존나: a letter between two syllables ends the first, if that is open."""
    initial, vowel, final = _letters(found[1])
    return found[0] if final else _syllable(initial, vowel, _FINALS.index(found[2]))


def _drawn_out(before: str, letter: str) -> str | None:
    """The syllable of which `letter` only draws out the vowel; None where it does not."""
    if not ("가" <= before <= "힣" and "가" <= letter <= "힣"):
        return None
    initial, vowel, final = _letters(before)
    next_initial, next_vowel, next_final = _letters(letter)
    tail = _TAILS.get(_VOWELS[vowel])
    if final or next_initial != _SILENT or (next_vowel != vowel and _VOWELS[next_vowel] != tail):
        return None
    return _syllable(initial, vowel, next_final)


def _letters(syllable: str) -> tuple[int, int, int]:
    """Places of its letters among the initials, the vowels and the finals."""
    place = ord(syllable) - _FIRST
    return place // _PER_INITIAL, place % _PER_INITIAL // _PER_VOWEL, place % _PER_VOWEL


def _syllable(initial: int, vowel: int, final: int) -> str:
    return chr(_FIRST + initial * _PER_INITIAL + vowel * _PER_VOWEL + final)
