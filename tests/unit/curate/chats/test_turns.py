"""A chat becomes conversations that begin with the others and end with the one to be imitated."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhf.curate.chats.events import Guesses
from rlhf.curate.chats.turns import conversations, open_chat
from rlhf.errors import DataError

PAIR = """Date,User,Message
2024-03-05 09:00:00,"다온","일어났다"
2024-03-05 09:01:00,"새봄","벌써?"
2024-03-05 09:02:00,"새봄","대단해"
2024-03-05 09:03:00,"새봄","(사진)"
2024-03-05 09:04:00,"다온","응"
2024-03-05 09:05:00,"다온","뛰고 올게"
2024-03-05 09:06:00,"새봄","잘 다녀와"
2024-03-05 15:06:00,"다온","왔어"
2024-03-05 21:06:01,"새봄","자?"
2024-03-05 21:07:00,"다온","아니"
"""


def chat_of(
    folder: Path, text: str, me: tuple[str, ...] = (), partner: str = "", gap: timedelta = timedelta(hours=6)
) -> tuple[list[list[tuple[str, str]]], list[str], Counter]:
    """(role, content) of the messages of each conversation, the problems, and what was dropped."""
    path = folder / "chat.csv"
    path.write_text(text, encoding="utf-8")
    counts: Counter[str] = Counter()
    found: list[Any] = [
        found for _, found in conversations(open_chat(path, "kakao", me, partner, gap), counts, Guesses())
    ]
    kept = [[(turn["role"], turn["content"]) for turn in turns] for turns in found if isinstance(turns, list)]
    return kept, [error.problem for error in found if isinstance(error, DataError)], +counts


def test_turns_are_joined_and_cut_by_hand(tmp_path: Path) -> None:
    kept, problems, counts = chat_of(tmp_path, PAIR, me=("다온",))
    assert kept == [
        # 일어났다 has nothing before it; a gap of exactly six hours is no longer one
        [
            ("user", "벌써?\n대단해"),
            ("assistant", "응\n뛰고 올게"),
            ("user", "잘 다녀와"),
            ("assistant", "왔어"),
        ],
        [("user", "자?"), ("assistant", "아니")],
    ]
    assert problems == []
    assert counts == {"pictures, files and calls": 1, "turns before a partner or after the last answer": 1}


def test_a_shorter_gap_cuts_more(tmp_path: Path) -> None:
    kept, problems, counts = chat_of(tmp_path, PAIR, me=("다온",), gap=timedelta(hours=1))
    assert [len(turns) for turns in kept] == [2, 2]
    assert problems == ["a conversation in which one side never answers"]
    assert counts["turns before a partner or after the last answer"] == 3  # 일어났다, 잘 다녀와, 왔어


def test_the_other_side_of_the_same_chat(tmp_path: Path) -> None:
    kept, _, _ = chat_of(tmp_path, PAIR, me=("새봄",))
    assert kept[0] == [
        ("user", "일어났다"),
        ("assistant", "벌써?\n대단해"),
        ("user", "응\n뛰고 올게"),
        ("assistant", "잘 다녀와"),
    ]


GROUP = """Date,User,Message
2024-03-05 09:00:00,"새봄","모여"
2024-03-05 09:01:00,"팀:기획","어디로"
2024-03-05 09:02:00,"팀:기획","언제"
2024-03-05 09:03:00,"다온","역 앞 7시"
2024-03-05 09:04:00,"새봄","응"
2024-03-05 09:05:00,"다온","이따 봐"
"""


def test_a_group_keeps_its_speakers(tmp_path: Path) -> None:
    kept, _, _ = chat_of(tmp_path, GROUP, me=("다온",))
    assert kept == [
        [
            ("user", "새봄: 모여\n팀:기획: 어디로\n언제"),
            ("assistant", "역 앞 7시"),
            ("user", "새봄: 응"),
            ("assistant", "이따 봐"),
        ]
    ]


def test_one_partner_of_a_group(tmp_path: Path) -> None:
    kept, _, counts = chat_of(tmp_path, GROUP, me=("다온",), partner="새봄")
    assert kept == [[("user", "모여"), ("assistant", "역 앞 7시"), ("user", "응"), ("assistant", "이따 봐")]]
    assert counts == {"messages by other speakers": 2}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "no speaker to imitate"),
        ({"me": ("누구",)}, "nobody is called 누구"),
        ({"me": ("다온",), "partner": "누구"}, "no partner is called 누구"),
        ({"me": ("다온",), "partner": "다온"}, "no partner is called 다온"),
    ],
)
def test_speakers_are_listed_with_how_often_they_spoke(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        chat_of(tmp_path, GROUP, **options)
    for speaker in ("새봄 (2 messages)", "팀:기획 (2 messages)", "다온 (2 messages)"):
        assert speaker in caught.value.expected


def test_an_export_without_messages(tmp_path: Path) -> None:
    assert chat_of(tmp_path, "Date,User,Message\n") == ([], ["an export without messages"], Counter())
