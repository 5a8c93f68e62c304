"""A check says what a file is, finds what was put into it, and survives any file."""

from __future__ import annotations

import json

import pytest

from rlhf.cli import main
from rlhf.curate.check.command import CheckOptions, check_file
from rlhf.curate.check.cost import Costs, TokenizerTokens, price_of_token
from rlhf.data.records import Message, Ranking
from rlhf.errors import DataError

ROW = {"prompt": "오늘 뭐 해?", "response": "집에서 쉬고 있어요."}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def found(report):
    return {finding.code: finding for finding in report.findings}


def checked(path, stage=None, **options):
    return check_file(CheckOptions(str(path), stage, **options))


def lines(finding):
    return [place.line for place in finding.places]


def test_a_clean_file(tmp_path):
    report = checked(write(tmp_path / "a.jsonl", [ROW]), "sft")
    assert (report.status, report.rows, report.bad_rows, report.findings) == (0, 1, 0, [])
    assert report.usable_for == ["sft", "ppo"]
    assert report.roles == {"user": 1, "assistant": 1}
    assert report.hangul_share == 1.0
    # "오늘 뭐 해?" 7 characters -> 4 tokens; "집에서 쉬고 있어요." 11 -> 6, and one that ends the answer
    assert report.tokens["total"] == report.tokens["longest"] == 11


def test_faults_with_their_lines(tmp_path):
    answer = {"prompt": "질문"}
    rows = [
        ROW,
        {**answer, "response": "네.<|endoftext|>"},
        {**answer, "response": "네\u200b요."},
        {**answer, "response": "\u1112\u1161\u11ab글"},  # 한 in three jamo
        {**answer, "response": "ì•ˆë…• 하세요"},
        {**answer, "response": "\u200b</s>"},
        {**answer, "response": "가\x07나"},
        {**answer, "response": "Only English here."},
        ROW,
    ]
    report = checked(write(tmp_path / "a.jsonl", rows))
    codes = found(report)
    expected = {
        "special-token": [2, 6],
        "invisible": [3, 6],
        "not-nfc": [4],
        "mojibake": [5],
        "shows-nothing": [6],
        "control": [7],
        "duplicate-row": [9],
    }
    assert {code: lines(codes[code]) for code in expected} == expected
    assert 8 in lines(codes["not-korean"])
    assert codes["duplicate-row"].places[0].detail == "as line 1"
    assert report.status == 0


def test_joined_emoji_and_plain_korean_are_no_faults(tmp_path):
    text = "우리 가족 👨\u200d👩\u200d👧 좋아요 ㅋㅋㅋ 뷁! 3°C · 10% — “네”"
    assert checked(write(tmp_path / "a.jsonl", [{"prompt": "가족은?", "response": text}])).findings == []


def test_conflicts_and_equal_answers(tmp_path):
    rows = [
        {"prompt": "뭐?", "chosen": "가요", "rejected": "나요"},
        {"prompt": "뭐?", "chosen": "나요", "rejected": "가요"},
        {"prompt": "뭐?", "chosen": "같아요", "rejected": "같아요 "},
        {"prompt": "왜?", "responses": ["다요", "라요"], "ranks": [1, 1]},
    ]
    codes = found(checked(write(tmp_path / "a.jsonl", rows[:3]), "reward"))
    assert (codes["conflict"].count, lines(codes["conflict"])) == (1, [2])
    assert lines(codes["same-answers"]) == [3]
    tied = checked(write(tmp_path / "b.jsonl", [rows[3]]), "reward")
    assert tied.status == 1
    assert lines(found(tied)["all-tied"]) == [1]
    assert checked(tmp_path / "b.jsonl", "ppo").status == 0


def test_the_stage_decides(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROW])
    assert [checked(path, stage).status for stage in ("sft", "ppo", "reward")] == [0, 0, 1]
    assert found(checked(path, "reward"))["not-for-stage"].count == 1


def test_bad_rows_name_line_and_key(tmp_path):
    turns = [{"role": "user", "content": "안녕"}, {"role": "bot", "content": "네"}]
    good = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
    report = checked(write(tmp_path / "a.jsonl", [{"messages": good}, {"messages": turns}]))
    assert (report.status, report.bad_rows) == (1, 1)
    finding = found(report)["bad-row"]
    assert lines(finding) == [2]
    assert "messages[#]" in finding.title
    assert "bot" in finding.title


def test_prompts_of_another_file(tmp_path):
    other = write(tmp_path / "train.jsonl", [{"prompt": "다른 것"}, {"prompt": "오늘  뭐 해?"}])
    report = checked(write(tmp_path / "dev.jsonl", [ROW]), against=(str(other),))
    assert found(report)["leak"].places[0].detail == f"{other}:2"
    missing = checked(tmp_path / "dev.jsonl", against=(str(tmp_path / "none.jsonl"),))
    assert "against" in found(missing)


def test_too_long(tmp_path):
    report = checked(write(tmp_path / "a.jsonl", [ROW, {**ROW, "response": "가" * 100}]), max_length=20)
    assert lines(found(report)["too-long"]) == [2]


def test_cost_by_hand():
    cost = Costs(epochs=3, price="0.03/1k", tokens_per_second=1000, gpus=4).of(1_200_000)
    assert cost["trained_tokens"] == 3_600_000
    assert cost["cost"] == pytest.approx(108.0)
    assert cost["hours"] == pytest.approx(1.0)
    assert cost["gpu_hours"] == pytest.approx(4.0)
    assert price_of_token("$25/1m") == pytest.approx(0.000025)
    for price in ("free", "3", "1/0k", "nan/1k"):
        with pytest.raises(DataError, match="price"):
            price_of_token(price)


def test_tokens_with_a_tokenizer(chat_tokenizer):
    counted = TokenizerTokens(chat_tokenizer, "t").rows(
        [Ranking((Message("user", "뭐?"),), ("가요", "나는요"), (1, 2))]
    )[0]
    head = (
        "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
        "### 명령어:\n뭐?\n\n### 응답:\n"
    )
    eos = chat_tokenizer.tokenizer.eos_token
    prompt, first, second = (
        len(chat_tokenizer.token_ids([text])[0]) for text in (head, f"{head}가요{eos}", f"{head}나는요{eos}")
    )
    assert counted == (prompt + (first - prompt) + (second - prompt), max(first, second))


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("cut.jsonl", json.dumps(ROW).encode() + b'\n{"prompt": "a', 1),
        ("cp949.jsonl", json.dumps(ROW, ensure_ascii=False).encode("cp949"), 2),
        ("cp949.csv", "prompt,response\n오늘,쉬어요\n".encode("cp949"), 2),
        ("nul.jsonl", json.dumps(ROW).encode() + b"\n\0\0\n", 1),
        ("empty.jsonl", b"", 1),
        ("deep.jsonl", b"[" * 100_000, 2),
        ("deep.json", b"[" * 100_000, 2),
        ("digits.jsonl", b'{"prompt": ' + b"9" * 5000 + b"}", 2),
        ("score.jsonl", b'{"prompt": "a", "responses": ["b", "c"], "scores": [' + b"9" * 4000 + b", 1]}", 1),
        ("binary.jsonl", bytes(range(256)) * 50, 2),
        ("numbers.json", b"[1, 2, 3]", 2),
        ("object.json", b'{\n"rows": [{"prompt": "a"}]\n}', 2),
        ("keys.jsonl", b'{"\\u001b[31m\\ud800": 1}', 1),
        ("notes.md", "# 제목\n".encode(), 2),
        ("chat.txt", "2023년 5월 10일 오전 12:05, 민수 : 안녕\n2023년 5월 10일 오전 12:06, 지현 : 응\n".encode(), 1),
    ],
)
def test_hostile_files(tmp_path, capsys, name, content, status):
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["data", "check", str(path)]) == status
    assert str(path) in capsys.readouterr().out
    assert main(["data", "check", str(path), "--json"]) == status
    capsys.readouterr().out.encode("utf-8")


def test_a_folder_and_a_missing_file(tmp_path):
    assert checked(tmp_path).status == 2
    assert checked(tmp_path / "none.jsonl").status == 2


def test_a_file_that_fails_to_read(tmp_path):
    path = tmp_path / "memory.jsonl"
    path.symlink_to("/proc/self/mem")
    assert checked(path).status == 2


def test_many_answers_take_no_square_of_time(tmp_path):
    row = {"prompt": "뭐?", "responses": ["가"] * 30_000, "scores": list(range(30_000))}
    assert checked(write(tmp_path / "a.jsonl", [row])).rows == 1


def test_json_names_places(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [ROW, ROW])
    assert main(["data", "check", str(path), "--stage", "sft", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    duplicate = next(each for each in report["findings"] if each["code"] == "duplicate-row")
    assert duplicate["places"] == [{"line": 2, "detail": "as line 1"}]


def test_unread_keys_of_bad_rows_are_shown_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = {"messages": [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "네!", "tone": "x"}]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, {"prompt": "왜?"})), encoding="utf-8")
    report = check_file(CheckOptions(str(path)))
    shown = [place.detail for finding in report.findings if finding.code == "unused-keys" for place in finding.places]
    assert shown == ["`messages[].tone`: 'x'", "`prompt`: '왜?'"]
    assert report.status == 1
