from __future__ import annotations

import hashlib
import json

import pytest

from rlhf.data.records import Demonstration, Message
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

ASK = {"role": "user", "content": "안녕?"}
ANSWER = {"role": "assistant", "content": "안녕하세요!"}
GOOD = {"prompt": "안녕?", "response": "안녕하세요!"}
HELLO = Demonstration((Message("user", "안녕?"), Message("assistant", "안녕하세요!")), source="file")


def write(tmp_path, rows, name="file.jsonl"):
    path = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def read(path, kind, **options):
    return read_records(DataSource(path), kind, **options)


def test_undecodable_line_says_where_and_how_to_convert(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + '{"prompt": "안녕"}'.encode("cp949"))
    with pytest.raises(DataError) as caught:
        read(str(path), Demonstration)
    assert caught.value.where == f"{path}:2"
    assert "iconv -f cp949" in caught.value.fix


def test_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, [GOOD], "sft_train.jsonl")
    write(tmp_path, [GOOD], "ranking.jsonl")
    with pytest.raises(DataError) as caught:
        read(str(tmp_path / "sft_trian.jsonl"), Demonstration)
    assert caught.value.fix == f"the nearest is {tmp_path / 'sft_train.jsonl'}"
    with pytest.raises(DataError) as caught:
        read(str(tmp_path / "no_such" / "deep" / "sft.jsonl"), Demonstration)
    assert str(tmp_path) in caught.value.fix


def test_bom_and_line_separator_in_text(tmp_path):
    path = tmp_path / "file.jsonl"
    row = {"prompt": "안녕?", "response": "앞\u2028뒤"}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    (record,) = read(str(path), Demonstration).records
    assert record.messages[1].content == "앞\u2028뒤"


def test_report_holds_the_hash_of_the_bytes(tmp_path):
    path = write(tmp_path, [GOOD])
    with open(path, "rb") as stream:
        expected = hashlib.sha256(stream.read()).hexdigest()
    assert read(path, Demonstration).report.sha256 == expected


def test_json_array_with_lines(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("\ufeff\n" + json.dumps([GOOD, {"prompt": "안녕?"}], indent=1), encoding="utf-8")
    # Line 1 is empty, [ is on 2, the first row on 3 to 6, the second starts on 7.
    with pytest.raises(DataError) as caught:
        read(str(path), Demonstration)
    assert caught.value.where == f"{path}:7  key `response`"
    assert read(str(path), Demonstration, on_bad_row="skip").records == [HELLO]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[\n{"prompt": "가", "response": "나"},\n{"prompt": "가", "resp', 3, "invalid JSON"),
        ('[\n{"prompt": "가", "response": "나"}\n{"prompt": "가"}]', 3, "lacks a comma"),
        ('[\n{"prompt": "가", "response": "나"},\n', None, "not closed"),
        ('[{"prompt": "가", "response": "나"}] 끝', None, "not closed at the end"),
    ],
)
def test_broken_array_is_an_error_even_when_skipping(tmp_path, text, line, said):
    path = tmp_path / "file.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        read(str(path), Demonstration, on_bad_row="skip")
    assert caught.value.where == (f"{path}:{line}" if line else str(path))


def test_json_suffix_may_hold_lines(tmp_path):
    path = write(tmp_path, [GOOD, GOOD], "file.json")
    assert read(path, Demonstration).records == [HELLO, HELLO]


def write_csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "file.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(tmp_path, encoding):
    text = 'instruction,output,등급\r\n"줄이 둘,\n쉼표 하나","네, 그래요.",5\r\n\r\n안녕?,안녕하세요!,4\r\n'
    records = read(write_csv(tmp_path, text, encoding), Demonstration).records
    assert [turn.content for turn in records[0].messages] == ["줄이 둘,\n쉼표 하나", "네, 그래요."]
    assert records[1] == HELLO


def test_csv_bad_rows_name_the_line_they_start_on(tmp_path):
    text = 'prompt,response\n"두\n줄",네.\n\n하나뿐\n안녕?,\n안녕?,안녕하세요!\n'
    result = read(write_csv(tmp_path, text), Demonstration, on_bad_row="skip")
    assert result.report.skipped == [
        "line 5: 1 cells under a header of 2",
        "line 6  key `response`: the text is empty",
    ]
    assert len(result.records) == 2


@pytest.mark.parametrize(
    ("text", "encoding", "where", "said"),
    [
        ("prompt,answer\n안녕?,네.\n", "utf-8", ":2", "which has no Demonstration"),
        ("question,answer\n안녕?,네.\n", "utf-8", ":2", "no known format"),
        ("prompt,prompt\n안녕?,네.\n", "utf-8", ":1", "repeated name"),
        ('prompt,response\n안녕?,"네.\n', "utf-8", ":2", "invalid CSV"),
        ("prompt,response\n안녕?,네.\n", "cp949", ":2", "is not UTF-8"),
    ],
)
def test_unusable_csv(tmp_path, text, encoding, where, said):
    path = write_csv(tmp_path, text, encoding)
    with pytest.raises(DataError, match=said) as caught:
        read(path, Demonstration, on_bad_row="skip")
    assert caught.value.where == f"{path}{where}"


def test_a_file_cut_inside_a_character_is_called_cut(tmp_path):
    path = tmp_path / "cut.jsonl"
    path.write_bytes('{"prompt": "안녕?", "response": "네."}\n{"prompt": "안'.encode()[:-1])
    with pytest.raises(DataError, match="ends in the middle of a character") as caught:
        read(str(path), Demonstration)
    assert caught.value.where == f"{path}:2"
    assert "may be truncated" in caught.value.fix


def test_datasets_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"messages": [ASK, ANSWER]}, {"messages": [ASK]}])
    folder = str(tmp_path / "file")
    rows.save_to_disk(folder)
    with pytest.raises(DataError) as caught:
        read(folder, Demonstration)
    assert caught.value.where == f"{folder}:2  key `messages`"
    result = read(folder, Demonstration, on_bad_row="skip")
    assert result.records == [HELLO]
    assert len(result.report.sha256) == 64
    with pytest.raises(DataError, match="no split 'train'"):
        read(f"{folder}#train", Demonstration)


def test_datasets_folder_with_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    train, test = datasets.Dataset.from_list([GOOD]), datasets.Dataset.from_list([GOOD, GOOD])
    folder = str(tmp_path / "sets")
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(folder)
    assert len(read(f"{folder}#train", Demonstration).records) == 1
    assert len(read(f"{folder}#test", Demonstration).records) == 2
    for path in (folder, f"{folder}#valid"):
        with pytest.raises(DataError) as caught:
            read(path, Demonstration)
        assert caught.value.expected == f"{folder}#train, {folder}#test"


def test_folder_that_is_no_dataset(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="folder without a dataset"):
        read(str(tmp_path), Demonstration)
