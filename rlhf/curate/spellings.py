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
    return _DRAWN_OUT.sub(_one_vowel, text)


def _joined(found: re.Match[str]) -> str:
    initial, vowel, final = found.groups(default=" ")
    return _syllable(_INITIALS.index(initial), _VOWELS.index(vowel), _FINALS.index(final))


def _closed(found: re.Match[str]) -> str:
    """조ㄴ나 as 존나: a letter between two syllables ends the first, if that is open."""
    initial, vowel, final = _letters(found[1])
    return found[0] if final else _syllable(initial, vowel, _FINALS.index(found[2]))


def _one_vowel(found: re.Match[str]) -> str:
    """The first syllable, ended by the final of the last, if any."""
    initial, vowel, _ = _letters(found[0][0])
    return _syllable(initial, vowel, _letters(found[0][-1])[2])


def _drawn_out(vowel: int) -> str:
    """An open syllable with the vowel, then syllables that only draw it out; one with a final is the last."""
    tails = {vowel, _VOWELS.find(_TAILS.get(_VOWELS[vowel], _VOWELS[vowel]))}
    begins = "".join(_syllable(initial, vowel, 0) for initial in range(len(_INITIALS)))
    goes_on = "".join(_syllable(_SILENT, tail, 0) for tail in tails)
    ends = "".join(_syllable(_SILENT, tail, final) for tail in tails for final in range(len(_FINALS)))
    return f"[{begins}][{goes_on}]*[{ends}]"


def _letters(syllable: str) -> tuple[int, int, int]:
    """Places of its letters among the initials, the vowels and the finals."""
    place = ord(syllable) - _FIRST
    return place // _PER_INITIAL, place % _PER_INITIAL // _PER_VOWEL, place % _PER_VOWEL


def _syllable(initial: int, vowel: int, final: int) -> str:
    return chr(_FIRST + initial * _PER_INITIAL + vowel * _PER_VOWEL + final)


_DRAWN_OUT = re.compile("|".join(map(_drawn_out, range(len(_VOWELS)))))
