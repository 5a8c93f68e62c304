"""Every public format becomes rows that the stages read; what cannot be used is counted."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.cli import main
from rlhf.curate.formats.answered import from_alpaca, from_messages
from rlhf.curate.formats.compared import from_pair, from_preference
from rlhf.curate.formats.importing import ImportOptions, import_files
from rlhf.curate.output import manifest_path
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ConfigError, DataError


def imported(folder: Path, name: str, content: str | bytes, **options: Any) -> list[dict[str, Any]]:
    """The rows written for one file, without their source."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = folder / "out.jsonl"
    import_files(ImportOptions((str(path),), out, **options))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row.pop("source") for row in rows} == {path.stem}
    return rows


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads(manifest_path(folder / "out.jsonl").read_text(encoding="utf-8"))


def asked(question: str, answer: str, **more: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question, **more}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (asked("안녕", "반가워요"), asked("안녕", "반가워요")),
        ({"prompt": "안녕\n\n###\n\n", "completion": " 반가워요\n\n@@@"}, asked("안녕", "반가워요")),
        (
            {"conversations": [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "반가워요"}]},
            asked("안녕", "반가워요"),
        ),
        ({"instruction": "안녕", "input": "", "output": "반가워요"}, asked("안녕", "반가워요")),
        ({"instruction": "줄여 줘", "input": "긴 글", "output": "글"}, asked("줄여 줘", "글", input="긴 글")),
        (
            {"chosen": "\n\nHuman: 안녕\n\nAssistant: 반가워요", "rejected": "\n\nHuman: 안녕\n\nAssistant: 왜"},
            {"prompt": [{"role": "user", "content": "안녕"}], "chosen": "반가워요", "rejected": "왜"},
        ),
        (
            {"prompt": "안녕", "chosen": "반가워요", "rejected": "왜"},
            {"prompt": [{"role": "user", "content": "안녕"}], "chosen": "반가워요", "rejected": "왜"},
        ),
        ({"question": "안녕", "answer": "반가워요"}, asked("안녕", "반가워요")),
        ({"prompt": "안녕", "id3": "x"}, {"prompt": "안녕"}),
    ],
)
def test_formats_are_recognised(tmp_path: Path, row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert imported(tmp_path, "rows.jsonl", lines(row)) == [expected]
    assert imported(tmp_path, "rows.json", json.dumps([row])) == [expected]


def test_what_is_written_is_what_the_stages_read(tmp_path: Path) -> None:
    imported(tmp_path, "a.jsonl", lines({"instruction": "줄여 줘", "input": "긴 글", "output": "글"}))
    (record,) = read_records(DataSource(str(tmp_path / "out.jsonl")), Demonstration).records
    assert (record.messages[0].input, record.messages[1].content, record.source) == ("긴 글", "글", "a")
    imported(tmp_path, "b.jsonl", lines({"prompt": "안녕", "chosen": "반가워요", "rejected": "왜"}))
    (ranking,) = read_records(DataSource(str(tmp_path / "out.jsonl")), Ranking).records
    assert ranking.responses == ("반가워요", "왜")


def test_self_instruct_instances_become_rows() -> None:
    row = {
        "instruction": "옮겨 줘",
        "instances": [{"input": "a", "output": "가"}, {"input": "<noinput>", "output": "나"}],
    }
    assert from_alpaca(row, Counter()) == [asked("옮겨 줘", "가", input="a"), asked("옮겨 줘", "나")]


def test_conversations_are_trimmed_and_joined() -> None:
    said = [("gpt", "어서 와요"), ("human", "안녕"), ("human", "뭐 해?"), ("gpt", "쉬어요"), ("human", "그래")]
    row = {"system": "친구", "conversations": [{"from": who, "value": text} for who, text in said]}
    assert from_messages(row, Counter()) == [
        {
            "messages": [
                {"role": "system", "content": "친구"},
                {"role": "user", "content": "안녕\n뭐 해?"},
                {"role": "assistant", "content": "쉬어요"},
            ]
        }
    ]


def test_preference_rows_of_the_hosted_service() -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "안녕"}]},
        "preferred_output": [{"role": "assistant", "content": "반가워요"}],
        "non_preferred_output": [{"role": "assistant", "content": "왜"}],
    }
    assert from_preference(row, Counter()) == [
        {"prompt": [{"role": "user", "content": "안녕"}], "chosen": "반가워요", "rejected": "왜"}
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": [{"role": "user", "content": "안녕"}]}, "no user turn that the assistant answers"),
        ({"messages": []}, "empty one"),
        ({"messages": [{"role": "tool", "content": "3"}]}, "a role other than"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]}, "call of a tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text"),
        (
            {"messages": [{"role": "user", "content": "응?"}, {"role": "assistant", "content": "네", "weight": 0}]},
            "every answer has weight 0",
        ),
        ({"messages": [{"role": "assistant", "content": "네", "weight": 0.5}]}, "0.5"),
        (
            {"messages": [{"role": "assistant", "content": "네", "weight": 0}, {"from": "gpt", "value": "응"}]},
            "another weight",
        ),
        ({"messages": ["안녕"]}, "is not a message"),
    ],
)
def test_messages_that_cannot_be_used(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        from_messages(row, Counter())


def test_comparisons_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="same as `chosen`"):
        from_pair({"prompt": "안녕", "chosen": "네", "rejected": "네 "}, Counter())
    start = "\n\nHuman: 안녕\n\nAssistant: "
    with pytest.raises(DataError, match="before the last answer"):
        from_pair({"chosen": f"{start}네", "rejected": "\n\nHuman: 야\n\nAssistant: 왜"}, Counter())
    with pytest.raises(DataError, match="does not end in an answer"):
        from_pair({"chosen": f"{start}네\n\nHuman: 더", "rejected": f"{start}왜"}, Counter())


turns = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: bool(text.strip()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(turns, turns), min_size=1, max_size=4))
def test_any_text_comes_through_messages(pairs: list[tuple[str, str]]) -> None:
    row = {
        "conversations": [
            {"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair, strict=True)
        ]
    }
    (converted,) = from_messages(row, Counter())
    expected = [unicodedata.normalize("NFC", text.strip()) for pair in pairs for text in pair]
    assert [turn["content"] for turn in converted["messages"]] == expected


# Tables


def test_a_korean_table_from_excel(tmp_path: Path) -> None:
    content = '질문,답변,점수\n"뭐 먹지?\n배고파","국수, 어때요?",5\n'.encode("cp949")
    assert imported(tmp_path, "table.csv", content) == [asked("뭐 먹지?\n배고파", "국수, 어때요?")]
    path = str(tmp_path / "table.csv")
    assert manifest(tmp_path)["columns"] == {path: {"질문": "prompt", "답변": "response", "점수": None}}


def test_columns_can_be_named(tmp_path: Path) -> None:
    content = "A,B,질문\n안녕,반가워요,무시\n"
    columns = {"prompt": "A", "response": "B"}
    assert imported(tmp_path, "t.csv", content, columns=columns) == [asked("안녕", "반가워요")]
    rows = lines({"prompt": "안녕", "response1": "하나", "response2": "둘"})
    assert imported(tmp_path, "t.jsonl", rows, columns={"response": "response2"}) == [asked("안녕", "둘")]


@pytest.mark.parametrize(
    ("name", "content", "options", "problem"),
    [
        ("t.csv", "A,B\n1,2\n", {}, "no column is known to hold the prompt; there are A, B"),
        ("t.csv", "A,B\n1,2\n", {"columns": {"prompt": "C"}}, "no column is called C"),
        ("t.csv", 'prompt,response\n"안녕,네\n', {}, "invalid CSV"),
        ("t.csv", "prompt,response\n", {}, "no rows"),
        ("t.txt", "그냥 글\n", {}, "plain text that is not a KakaoTalk chat"),
        ("t.jsonl", '{"prompt": "안', {}, "invalid JSON"),
        ("t.jsonl", "", {}, "no rows"),
        ("t.json", '[{"prompt": "안녕"}', {}, "truncated or lacks a comma"),
        ("t.jsonl", lines({"prompt": "", "response": "네"}), {}, "no row is left: 1 key `prompt` the text is empty"),
        ("t.jsonl", lines({"prompt": "a\0b"}), {}, "no row is left: 1 a text with a NUL byte"),
        ("t.jsonl", lines({"prompt": "안녕"}), {"style": "completion"}, "no single answer"),
        ("t.csv", "Date,User,Message\n", {}, "no row is left: 1 an export without messages"),
    ],
)
def test_bad_files_leave_nothing_behind(
    tmp_path: Path, name: str, content: str, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        imported(tmp_path, name, content, **options)
    assert str(tmp_path / name) in caught.value.where
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "instruction": "하나", "output": "1"},
        {"id": 1, "instruction": "둘", "output": "2"},
        {"id": 2, "instruction": "셋", "output": ""},
        {"id": 3, "instruction": "넷", "output": None},
        {"id": 4, "instruction": "다\0섯", "output": "5"},
    ]
    content = (lines(*rows) + '{"instruction": "여섯", "out').encode() + b'\n{"instruction": "\xb0\xa1"}\n'
    assert imported(tmp_path, "rows.jsonl", content) == [asked("하나", "1")]
    assert manifest(tmp_path)["dropped"] == {
        "an id of an earlier row": 1,
        "key `output` the text is empty": 1,
        "key `output` is null, not text": 1,
        "a text with a NUL byte": 1,
        "invalid JSON": 1,
        "byte is not UTF-8": 1,
    }
    (example,) = manifest(tmp_path)["examples_of_dropped"]["invalid JSON"]
    assert example.startswith(f"{tmp_path}/rows.jsonl:6")


def test_a_line_without_end_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.data.lines.LONGEST_LINE", 1 << 20)
    content = lines({"prompt": "가" * 1_000_000}, {"prompt": "안녕"})
    assert imported(tmp_path, "rows.jsonl", content) == [{"prompt": "안녕"}]
    assert manifest(tmp_path)["dropped"] == {"a line of more than 1 MiB": 1}


def test_two_kinds_of_rows_do_not_mix(tmp_path: Path) -> None:
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text(lines({"prompt": "안녕"}), encoding="utf-8")
    two.write_text(lines(asked("안녕", "네")), encoding="utf-8")
    with pytest.raises(DataError, match="a row of messages after rows of prompt"):
        import_files(ImportOptions((str(one), str(two)), tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


# Chats, personal information, styles

CHAT = """Date,User,Message
2024-03-05 09:00:00,"새봄","번호 010-2222-3333 맞아?ㅋㅋㅋㅋㅋ"
2024-03-05 09:01:00,"다온","맞아 😊 ㅠㅠㅠ"
2024-03-05 09:02:00,"새봄","그래 ㅋㅋ"
2024-03-05 09:03:00,"다온","응"
"""
ME = ("다온",)


def test_a_chat_is_masked_and_calmed(tmp_path: Path) -> None:
    (row,) = imported(tmp_path, "chat.csv", CHAT, me=ME)
    assert [turn["content"] for turn in row["messages"]] == [
        "번호 [전화번호] 맞아?ㅋㅋ",
        "맞아 😊 ㅠㅠ",
        "그래 ㅋㅋ",
        "응",
    ]
    assert manifest(tmp_path)["counts"] == {"masked phone numbers": 1, "repeated letters shortened": 2}


def test_pairs_with_signs_at_their_ends(tmp_path: Path) -> None:
    rows = imported(tmp_path, "chat.csv", CHAT, me=ME, style="completion", separator=" ->", stop=" END", keep_pii=True)
    assert rows == [
        {"prompt": "번호 010-2222-3333 맞아?ㅋㅋ ->", "completion": "맞아 😊 ㅠㅠ END"},
        {"prompt": "그래 ㅋㅋ ->", "completion": "응 END"},
    ]


def test_a_text_that_holds_the_sign_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds the separator or the stop sequence"):
        imported(tmp_path, "chat.csv", CHAT, me=ME, style="completion", stop="응")


def test_a_missing_package_stops_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ko_pii", None)
    with pytest.raises(ConfigError, match=r"\.\[pii\]' in the checkout, or --keep-pii"):
        import_files(ImportOptions((str(tmp_path / "absent.csv"),), tmp_path / "out.jsonl"))
    (row,) = imported(tmp_path, "chat.csv", CHAT, me=ME, keep_pii=True)
    assert "010-2222-3333" in row["messages"][0]["content"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "chat.csv", tmp_path / "out.jsonl"
    source.write_text(CHAT, encoding="utf-8")
    assert main(["data", "import", "--in", str(source), "--out", str(out)]) == 1
    assert "다온 (2 messages)" in capsys.readouterr().err
    flags = ["--me", "다온", "--style", "completion", "--separator", "\\n##\\n", "--stop", " END", "--gap", "30m"]
    assert main(["data", "import", "--in", str(source), "--out", str(out), *flags]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: 2 rows; 1 masked phone numbers" in shown
    assert json.loads(out.read_text(encoding="utf-8").splitlines()[1])["prompt"] == "그래 ㅋㅋ\n##\n"


@pytest.mark.parametrize("flag", [["--gap", "6"], ["--gap", "0h"], ["--columns", "prompt"], ["--columns", "q=질문"]])
def test_bad_flags(flag: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "import", "--in", "a", "--out", "b", *flag])
    assert caught.value.code == 2
