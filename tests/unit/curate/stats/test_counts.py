"""Numbers of small files, counted by hand, and a page that stands alone."""

from __future__ import annotations

import json

import pytest

from rlhf.cli import main
from rlhf.curate.stats.counts import file_stats
from rlhf.curate.stats.topics import topics_of
from rlhf.errors import DataError


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


PAIRS = [
    {"prompt": "뭐 먹지?", "chosen": "따뜻한 국수는 어떠세요?", "rejected": "몰라.", "source": "가"},
    {"prompt": "뭐 먹지?", "chosen": "밥.", "rejected": "아무거나 드세요.", "source": "나"},
    {"prompt": "왜 그래?", "responses": ["글쎄요.", "그냥."], "ranks": [1, 1]},
]


def test_labels_by_hand(tmp_path):
    pairs = [{"prompt": p["prompt"], "responses": [p["rejected"], p["chosen"]], "ranks": [2, 1]} for p in PAIRS[:2]]
    stats = file_stats([write(tmp_path / "a.jsonl", [*pairs, PAIRS[2], {"prompt": "빈 줄"}])])
    assert (stats.rows, stats.bad_rows, stats.duplicate_prompts, stats.duplicate_rows) == (4, 1, 1, 0)
    assert stats.labels == {
        "tied throughout": 1,
        "compared": 2,
        "best is longer": 1,
        "best is more polite": 1,
        "best is listed first": 0,
        "answers are equal": 0,
    }
    assert stats.registers["best answers"] == {"polite": 1, "plain": 1}
    assert stats.answers_per_row == {2: 3}


def test_lengths_sources_and_scores(tmp_path):
    rows = [
        {"prompt": "가나", "response": "다라마", "source": "x", "scores": [1, 5], "criteria": ["친근함", "무해함"]},
        {"prompt": "가나다라", "response": "마", "source": "y", "scores": [3, 5], "criteria": ["친근함", "무해함"]},
    ]
    stats = file_stats([write(tmp_path / "a.jsonl", rows)])
    assert stats.prompt_characters == [2, 4]
    assert stats.answer_characters == [3, 1]
    assert stats.sources == {"x": 1, "y": 1}
    assert stats.scores == {"친근함": {1.0: 1, 3.0: 1}, "무해함": {5.0: 2}}


def test_topics_keep_themes_apart():
    places = ("서울", "부산", "대구", "광주", "대전", "제주", "강릉", "수원")
    dishes = ("돼지", "참치", "두부", "버섯", "묵은지", "햄", "꽁치", "만두")
    weather = [f"내일 {place} 날씨는 맑고 비는 안 온대" for place in places]
    food = [f"{dish} 김치찌개 끓이는 요리 재료" for dish in dishes]
    more = [f"{number}월 서울 날씨는 비는 맑고" for number in range(1, 9)]
    topics = topics_of([*weather, *food, *more])
    assert sum(topic.size for topic in topics) == 24
    assert len(topics) == 2
    assert any("날씨" in example for example in topics[0].examples)
    assert any("김치찌개" in example for example in topics[1].examples)


def test_page_stands_alone_and_is_escaped(tmp_path):
    rows = [*PAIRS[:2], {"prompt": "<script>alert(1)</script>", "chosen": "네.", "rejected": "응.", "source": "<b>"}]
    page = tmp_path / "out" / "page.html"
    assert main(["data", "stats", write(tmp_path / "a.jsonl", rows), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") >= 4
    assert "<script>alert" not in text
    assert text.count("<script") == 1  # of the switch
    assert text.count('<span lang="ko">') == text.count('<span lang="en">') > 20
    assert "http-equiv" not in text
    assert 'src="' not in text


def test_text_summary(tmp_path, capsys):
    assert main(["data", "stats", write(tmp_path / "a.jsonl", PAIRS[:2])]) == 0
    shown = capsys.readouterr().out
    assert "2 rows (chosen-rejected)" in shown
    assert "  characters per prompt: mean" in shown


def test_nothing_usable(tmp_path):
    with pytest.raises(DataError, match="none of 1 rows"):
        file_stats([write(tmp_path / "a.jsonl", [{"x": 1}])])
