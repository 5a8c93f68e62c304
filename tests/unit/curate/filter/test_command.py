"""Each filter drops what it names, rows count once, and what is kept is kept as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.filter.command import FilterOptions, filter_rows
from rlhf.curate.output import Output, manifest_path
from rlhf.curate.refusals import is_boilerplate
from rlhf.curate.row_texts import row_texts, with_texts_changed
from rlhf.errors import DataError, TokenizerError

LONG = "주말에 부모님과 함께 다녀올 만한 조용한 바닷가 마을을 추천해 주세요"


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def filtered(folder: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[list[dict[str, Any]], Output]:
    """The rows kept, and the report."""
    output = filter_rows(FilterOptions(written(folder / "in.jsonl", rows), folder / "out.jsonl", **options))
    return read(folder / "out.jsonl"), output


def test_fifteen_characters_go_and_sixteen_stay(tmp_path: Path) -> None:
    rows = [{"prompt": "가 " * 15 + "\n"}, {"prompt": "가 " * 16, "extra": {"ids": [1, None]}, "source": "s"}]
    kept, output = filtered(tmp_path, rows, min_chars=16)
    assert kept == [rows[1]]
    assert output.dropped == {"fewer than 16 characters": 1}


def test_a_row_counts_under_the_first_filter_that_dropped_it(tmp_path: Path) -> None:
    rows = [
        {"prompt": "hi", "response": "저는 AI 언어 모델이라 느낌이 없어요."},  # short, foreign and boilerplate
        {"prompt": LONG, "response": "저는 AI 언어 모델이라 여행을 가 본 적이 없습니다."},
        {"prompt": LONG, "response": "남해의 작은 마을은 어떠세요?"},  # repeats a row that is gone: kept
        {"prompt": f"{LONG}.", "response": "강릉도 좋아요."},
    ]
    options = {"min_chars": 16, "min_hangul": 0.5, "boilerplate": True, "dedup": ("cosine", 0.5)}
    kept, output = filtered(tmp_path, rows, **options)
    assert kept == [rows[2]]
    expected = {"fewer than 16 characters": 1, "less than 0.5 Hangul": 0, "boilerplate": 1, "near-duplicate": 1}
    assert list(output.dropped.items()) == list(expected.items())  # in the order they ran
    manifest = json.loads(manifest_path(tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert manifest["kept"] + sum(manifest["dropped"].values()) == len(rows)
    assert manifest["options"]["min_chars"] == 16
    (example,) = manifest["examples_of_dropped"]["near-duplicate"]
    assert f"{LONG}. ~ {LONG}" in example


def test_the_filter_of_2023_looks_at_dropped_rows_too(tmp_path: Path) -> None:
    rows = [{"prompt": "바다 여행"}, {"prompt": "바다 여행 그리고 산 여행 바다 여행"}]
    assert filtered(tmp_path, rows, min_chars=8, dedup=("cosine", 0.5), vectorizer="vaiv")[0] == []
    assert filtered(tmp_path, rows, min_chars=8, dedup=("cosine", 0.5))[0] == [rows[1]]


def test_tokens_of_the_prompt_and_the_longest_answer_count(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    # Two letters that the tiny vocabulary holds as bytes: ASCII letters are a token each.
    rows = [
        {"prompt": "qz", "responses": ["q", "zqzq"], "ranks": [1, 2]},
        {"prompt": "qz", "responses": ["q", "zqz"], "ranks": [1, 2]},
    ]
    kept, _ = filtered(tmp_path, rows, max_tokens=5, tokenizer=str(tiny_tokenizer_dir))
    assert kept == [rows[1]]
    with pytest.raises(TokenizerError, match="cannot load a tokenizer"):
        filtered(tmp_path, rows, max_tokens=5, tokenizer=str(tmp_path / "none"))


def test_language_is_of_the_prompt_and_of_the_answer(tmp_path: Path) -> None:
    rows = [
        {"prompt": "안녕하세요 hello", "response": "네"},  # 5 of 10 letters
        {"prompt": "안녕하세요 hello!", "response": "yes"},
        {"prompt": "좋아요 goodbye", "response": "네"},  # 3 of 10
        {"prompt": "1 + 1 = ?", "response": "2"},  # no letter to judge by
    ]
    assert filtered(tmp_path, rows, min_hangul=0.5)[0] == [rows[0], rows[3]]


def test_only_what_would_be_learnt_counts_as_boilerplate(tmp_path: Path) -> None:
    canned = "저는 인공지능이라서 감정을 느끼지 못합니다."
    rows = [
        {"prompt": LONG, "chosen": "남해는 어떠세요?", "rejected": canned},
        {"prompt": LONG, "chosen": canned, "rejected": "남해는 어떠세요?"},
        {"prompt": canned},
        {"prompt": canned, "response": "그래도 얘기해 줘서 고마워요."},
    ]
    assert filtered(tmp_path, rows, boilerplate=True)[0] == [rows[0], rows[3]]


@pytest.mark.parametrize(
    "text",
    [
        "저는 AI 언어 모델이라 개인적인 경험은 없지만 제주도를 추천해요.",
        "저는 OpenAI에서 만든 인공지능입니다. 무엇이 궁금하세요?",
        "저는 대화를 돕는 챗봇이며 몸이 없어요.",
        "인공지능으로서 저는 사람처럼 밥을 먹지는 않아요.",
        "언어 모델인 저는 날씨를 느낄 수 없습니다.",
        "죄송하지만 그 부탁은 도와드릴 수 없습니다.",
        "제 지식은 대략 2021년 9월까지의 자료를 바탕으로 합니다.",
        "실시간 정보를 확인할 수 없어서 오늘 환율은 몰라요.",
        "As an AI language model, I think Jeju is lovely.",
        "I’m just an AI, but that sounds great!",
        "My knowledge cutoff is September 2021.",
    ],
)
def test_talk_of_being_a_model_is_boilerplate(text: str) -> None:
    assert is_boilerplate(text)


@pytest.mark.parametrize(
    "text",
    [
        "인공지능이란 사람의 학습과 추론을 기계로 옮긴 기술이에요.",
        "저는 요즘 인공지능 수업을 듣는데 아주 재미있어요.",
        "언어 모델은 다음에 올 낱말을 예측합니다.",
        "늦어서 죄송해요. 지금 바로 갈게요!",
        "AI is a broad field; start with linear algebra.",
        "저는 떡볶이를 제일 좋아해요.",
        "챗봇을 만들려면 먼저 대화 자료를 모으세요.",
    ],
)
def test_an_answer_about_something_is_not(text: str) -> None:
    assert not is_boilerplate(text)


def test_rude_words_where_they_are_looked_for(tmp_path: Path) -> None:
    rows = [
        {"prompt": "야 이 멍청아", "response": "속상한 일이 있으셨어요?"},
        {"prompt": "안녕", "response": "멍청한 소리 하지 마."},
        {"prompt": "안녕", "response": "반가워요!"},
    ]
    assert filtered(tmp_path, rows, rude="prompt")[0] == rows[1:]
    assert filtered(tmp_path, rows, rude="answer")[0] == [rows[0], rows[2]]
    assert filtered(tmp_path, rows, rude="any")[0] == rows[2:]


def test_personal_information_drops_the_row_or_is_masked(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "제 번호는 010-1234-5678이에요."}], "note": "010-1234-5678"},
        {"prompt": "안녕하세요"},
    ]
    kept, output = filtered(tmp_path, rows, personal="drop")
    assert kept == rows[1:]
    assert "010" not in json.dumps(output.manifest(), ensure_ascii=False)
    kept, output = filtered(tmp_path, rows, personal="mask")
    assert kept[0]["messages"] == [{"role": "user", "content": "제 번호는 [전화번호]이에요."}]
    assert kept[0]["note"] == "010-1234-5678"  # a key that is not ours
    assert kept[1] == rows[1]
    assert output.counts == {"masked PHONE": 1}


def test_repeats_of_the_same_meaning_go(tmp_path: Path, tiny_neox: Path) -> None:
    rows = [{"prompt": "비가 오네요"}, {"prompt": "점심에 뭘 먹을까요?"}, {"prompt": "비가  오네요", "id": 3}]
    kept, output = filtered(tmp_path, rows, semantic=str(tiny_neox), semantic_threshold=0.999)
    assert rows[0] in kept
    assert output.dropped.get("same meaning", 0) == 3 - len(kept)
    rows[2]["prompt"] = rows[0]["prompt"]
    kept, output = filtered(tmp_path, rows, semantic=str(tiny_neox), semantic_threshold=0.999)
    assert kept == rows[:2]


def test_a_bad_row_stops_everything_or_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "안녕하세요"}\n{"prompt": ""}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl:2  key `prompt`") as caught:
        filter_rows(FilterOptions(str(path), tmp_path / "out.jsonl", min_chars=1))
    assert "--on-bad-row skip" in caught.value.fix
    assert [item.name for item in tmp_path.iterdir()] == ["in.jsonl"]
    output = filter_rows(FilterOptions(str(path), tmp_path / "out.jsonl", min_chars=1, on_bad_row="skip"))
    assert (output.kept, output.dropped) == (1, {"fewer than 1 characters": 0, "bad row": 2})


def test_half_a_surrogate_pair_under_another_key_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "안녕하세요", "note": "\\ud800"}\n', encoding="utf-8")
    assert filter_rows(FilterOptions(str(path), tmp_path / "out.jsonl", min_chars=1)).kept == 1
    assert read(tmp_path / "out.jsonl") == [{"prompt": "안녕하세요", "note": "\ud800"}]


def test_the_texts_of_each_format() -> None:
    turns = [
        {"role": "system", "content": "친구처럼 말해요."},
        {"role": "user", "content": "나 왔어", "input": "저녁"},
        {"role": "assistant", "content": "어서 와!"},
        {"role": "user", "content": "배고파"},
        {"role": "assistant", "content": "밥 먹자."},
    ]
    texts = row_texts({"messages": turns})
    assert texts.prompt == "나 왔어\n저녁\n어서 와!\n배고파"
    assert (texts.asked, texts.answers, texts.learnt) == ("배고파", ("밥 먹자.",), ("어서 와!", "밥 먹자."))
    texts = row_texts({"prompt": "안녕", "responses": ["가", "나", "다"], "ranks": [2, 1, 1]})
    assert (texts.asked, texts.answers, texts.learnt) == ("안녕", ("가", "나", "다"), ("나", "다"))
    texts = row_texts({"instruction": "요약해 줘", "input": "긴 글", "output": "짧은 글"})
    assert (texts.prompt, texts.learnt) == ("요약해 줘\n긴 글", ("짧은 글",))


def test_a_change_of_texts_reaches_texts_only() -> None:
    row = {"messages": [{"role": "user", "content": "a"}], "responses": ["a"], "ranks": [1], "id": "a"}
    assert with_texts_changed(row, str.upper) == {
        "messages": [{"role": "user", "content": "A"}],
        "responses": ["A"],
        "ranks": [1],
        "id": "a",
    }


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "in.jsonl", [{"prompt": LONG}, {"prompt": f"{LONG}!"}, {"prompt": "짧아요"}])
    out = tmp_path / "out.jsonl"
    command = ["data", "filter", "--in", source, "--out", str(out)]
    assert main([*command, "--min-chars", "16", "--dedup", "cosine:0.5", "--language", "ko"]) == 0
    assert read(out) == [{"prompt": LONG}]
    assert "1 rows; dropped 1 fewer than 16 characters, 1 near-duplicate (of 3)" in capsys.readouterr().out
    assert main([*command, "--dedup", "minhash", "--language", "ko:0.9"]) == 0
    assert read(out) == [{"prompt": LONG}, {"prompt": "짧아요"}]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no filter is named"),
        (["--max-tokens", "5"], "go together"),
        (["--vectorizer", "vaiv", "--dedup", "minhash"], "belongs to a cosine"),
    ],
)
def test_flags_that_make_no_sense_together(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in.jsonl", [{"prompt": LONG}])
    assert main(["data", "filter", "--in", source, "--out", str(tmp_path / "out.jsonl"), *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("flags", [["--dedup", "cosine:1.5"], ["--dedup", "exact"], ["--min-chars", "0"]])
def test_values_that_cannot_be(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["data", "filter", "--in", "a.jsonl", "--out", "b.jsonl", *flags])
    assert "expected" in capsys.readouterr().err
