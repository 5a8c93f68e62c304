"""Cleaning takes out whole patterns, never letters, and a row that would lose a text is dropped and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.curate.filter.command import FilterOptions, filter_rows
from rlhf.curate.text_faults import cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("잘 지내요<|endoftext|>", "잘 지내요"),
        ("<s>두 번<|endoftext|>끝</s><|endoftext|>", "두 번끝"),
        ("text <|endoftext|> of tent", "text  of tent"),  # a strip of the set of letters would eat "tent"
        ("가\u200b나\x00다\ufeff", "가나다"),
        ("가족 \U0001f468\u200d\U0001f469 이모지", "가족 \U0001f468\u200d\U0001f469 이모지"),  # joins two emoji
        ("\u1112\u1161\u11ab글", "한글"),
        ("### 응답:\n네", "### 응답:\n네"),
        ("3 < 4 그리고 [괄호]", "3 < 4 그리고 [괄호]"),
    ],
)
def test_cleaned(text: str, expected: str) -> None:
    assert cleaned(text) == expected


def test_cleaned_rows_go_on_and_emptied_ones_are_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "뭐 해?", "response": "쉬어요<|endoftext|>", "note": "<|endoftext|>"},
        {"prompt": "어디야?", "response": "\u200b<|endoftext|>"},
        {"prompt": "밥 먹었어?", "response": "먹었어요"},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    output = filter_rows(FilterOptions(str(source), tmp_path / "out.jsonl", clean=True))
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == [{"prompt": "뭐 해?", "response": "쉬어요", "note": "<|endoftext|>"}, rows[2]]
    assert output.dropped == {"nothing left of a text": 1}
    assert output.counts == {"texts cleaned": 1}
