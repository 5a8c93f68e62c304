"""Letters joined into syllables, and drawn-out vowels shortened."""

from __future__ import annotations

import random
import unicodedata

import pytest

from rlhf.curate.spellings import shortened, unified


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ㅎㅏㄴㄱㅡㄹ", "한글"),
        ("하ㄴ글", "한글"),  # a letter between two syllables ends the first
        ("한ㄱㅡㄹ", "한글"),
        ("ㅋㅋㅋ", "ㅋㅋㅋ"),
        ("ㄱㅅㅠㅠ", "ㄱㅅㅠㅠ"),  # tears are no vowel
        ("ＡＢＣ", "abc"),
        ("한\u200b글", "한글"),
        ("🐶새", "개새"),
        (unicodedata.normalize("NFD", "한글"), "한글"),
        ("", ""),
    ],
)
def test_unified(text: str, expected: str) -> None:
    assert unified(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("머어엉", "멍"),
        ("가아아", "가"),
        ("벼엉", "병"),  # ㅕ is drawn out as ㅓ
        ("가오", "가오"),  # another vowel
        ("강아지", "강아지"),  # the first has a final
        ("abc", "abc"),
    ],
)
def test_shortened(text: str, expected: str) -> None:
    assert shortened(text) == expected


@pytest.mark.parametrize("seed", range(3))
def test_shortened_is_what_letter_by_letter_gives(seed: int) -> None:
    """Of two syllables in canonical decomposition, the second is taken in if the first has no final, the second begins
    with a silent ㅇ, and its vowel is that of the first or what that glides into."""
    glides = dict(zip("ㅑㅒㅕㅖㅛㅠㅘㅙㅝㅞㅟㅢ", "ㅏㅐㅓㅔㅗㅜㅏㅐㅓㅔㅣㅣ", strict=True))
    vowels = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
    draw = random.Random(seed)
    letters = "가갸과귀각아안잉야여에애어얘예오요우유위의으왜워웨ㄱ a벼엉"
    for _ in range(2000):
        text = "".join(draw.choices(letters, k=draw.randint(0, 10)))
        found: list[str] = []
        for letter in text:
            before = unicodedata.normalize("NFD", found[-1]) if found else ""
            parts = unicodedata.normalize("NFD", letter)
            if len(before) == 2 and len(parts) > 1 and parts[0] == "\u110b":
                vowel, own = (vowels[ord(each[1]) - 0x1161] for each in (before, parts))
                if own in (vowel, glides.get(vowel)):
                    found[-1] = unicodedata.normalize("NFC", before + parts[2:])
                    continue
            found.append(letter)
        assert shortened(text) == "".join(found), text
