"""Letters joined into syllables, and drawn-out vowels shortened."""

from __future__ import annotations

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
