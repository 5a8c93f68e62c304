"""Every kind of file gives the same rows: compressed text, TSV, Parquet, Arrow, folders and data sets of the hub."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from rlhf.config.load import load_config
from rlhf.config.schema import SftConfig
from rlhf.data.byte_streams import name_of
from rlhf.data.readers import locate, read_rows, sha256_of
from rlhf.data.records import Demonstration, Message
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

ROWS = [
    {"prompt": "비 와?", "response": "네, 우산\t챙기세요.\n조심히요."},
    {"prompt": "밥 먹었어?", "response": '"아직"이요. 🍚'},
]
TURNS = [
    {
        "messages": [
            {"role": "user", "content": "안녕?", "weight": None},
            {"role": "assistant", "content": "왜", "weight": 0},
        ]
    }
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
TSV = 'prompt\tresponse\n비 와?\t"네, 우산\t챙기세요.\n조심히요."\n밥 먹었어?\t"""아직""이요. 🍚"\n'.encode()


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def arrow_stream(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def arrow_file(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def rows_of(path: str | Path) -> list[dict]:
    return [row for _, row in read_rows(locate(str(path)))]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", lambda path: path.write_bytes(LINES)),
        ("a.jsonl.gz", lambda path: path.write_bytes(gzip.compress(LINES))),
        ("a.ndjson.bz2", lambda path: path.write_bytes(bz2.compress(LINES))),
        ("a.jsonl.xz", lambda path: path.write_bytes(lzma.compress(LINES))),
        ("a.jsonl.zst", lambda path: path.write_bytes(zstd(LINES))),
        (
            "a.json.gz",
            lambda path: path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode())),
        ),
        ("a.jsonl", lambda path: path.write_bytes(json.dumps(ROWS, indent=1).encode())),  # an array by its first sign
        ("a.tsv", lambda path: path.write_bytes(TSV)),
        ("a.tsv.zst", lambda path: path.write_bytes(zstd(TSV))),
        ("a.parquet", lambda path: parquet(path, ROWS)),
        ("a.arrow", arrow_stream),
        ("a.arrow", arrow_file),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    write(tmp_path / name)
    assert rows_of(tmp_path / name) == ROWS
    found = read_records(DataSource(str(tmp_path / name)), Demonstration)
    assert [record.source for record in found.records] == ["a", "a"]
    assert found.lines[0] in (1, 2)


def test_lines_of_compressed_files_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LINES + b'{"prompt": "a", "resp'))
    with pytest.raises(DataError) as caught:
        read_records(DataSource(str(path)), Demonstration)
    assert caught.value.where == f"{path}:3"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(LINES * 50)[:-20]),
        ("a.jsonl.gz", LINES),
        ("a.jsonl.zst", zstd(LINES * 50)[:20]),
        ("a.jsonl.zst", LINES),
        ("a.jsonl.xz", lzma.compress(LINES)[:30]),
        ("a.jsonl.bz2", LINES),
        ("a.parquet", b"PAR1" + LINES),
        ("a.arrow", LINES),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"damaged or cut|cannot be read|invalid JSON|no rows") as caught:
        read_records(DataSource(str(tmp_path / name)), Demonstration)
    assert str(tmp_path / name) in caught.value.where


def test_nulls_that_arrow_adds_are_absent_keys(tmp_path: Path) -> None:
    """Objects of one column have the same keys in Arrow: a key that a turn lacks is null."""
    turns = [
        {"messages": [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "왜", "weight": 0}]},
        {"messages": [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "네!"}]},
    ]
    turns[0]["messages"] += turns[1]["messages"]
    path = parquet(tmp_path / "turns.parquet", turns)
    found = read_records(DataSource(str(path)), Demonstration)
    assert [message.learn for message in found.records[0].messages] == [True, False, True, True]
    assert found.records[1].messages == (Message("user", "안녕?"), Message("assistant", "네!"))
    assert found.report.unread == {}


def hub_folder(root: Path) -> Path:
    """A folder as a snapshot of the hub: Parquet files by split, and a README that names two configurations."""
    for config in ("plain", "extra"):
        for split, rows in (("train", ROWS), ("test", ROWS[:1])):
            parquet(root / config / f"{split}-00000-of-00001.parquet", rows)
    files = "[{{split: train, path: {0}/train-*}}, {{split: test, path: {0}/test-*}}]"
    entry = "- config_name: {0}\n  data_files: " + files + "\n"
    configs = "".join(entry.format(config) for config in ("plain", "extra"))
    (root / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{configs}---\n# rows\n", encoding="utf-8")
    return root


def test_a_folder_like_a_snapshot_of_the_hub(tmp_path: Path) -> None:
    root = hub_folder(tmp_path / "rows")
    assert rows_of(f"{root}#plain/train") == ROWS
    assert rows_of(f"{root}#extra/test") == ROWS[:1]
    with pytest.raises(DataError, match="several configurations") as caught:
        rows_of(root)
    assert caught.value.expected == f"{root}#plain/SPLIT, {root}#extra/SPLIT"
    with pytest.raises(DataError, match="several splits") as caught:
        rows_of(f"{root}#plain/")
    assert caught.value.expected == f"{root}#plain/train, {root}#plain/test"
    with pytest.raises(DataError, match="no split 'dev'"):
        rows_of(f"{root}#plain/dev")
    with pytest.raises(DataError, match="no configuration 'none'"):
        rows_of(f"{root}#none/train")


def test_a_folder_of_files_by_split(tmp_path: Path) -> None:
    parquet(tmp_path / "rows" / "data" / "train-00000-of-00002.parquet", ROWS[:1])
    parquet(tmp_path / "rows" / "data" / "train-00001-of-00002.parquet", ROWS[1:])
    assert rows_of(tmp_path / "rows") == ROWS
    assert rows_of(f"{tmp_path}/rows#train") == ROWS
    with pytest.raises(DataError, match="a folder without a dataset"):
        rows_of((tmp_path / "empty").mkdir() or tmp_path / "empty")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one data set; a path that is no file is looked for there."""
    root = tmp_path / "cache"
    snapshot = root / "datasets--somebody--talk" / "snapshots" / ("0" * 40)
    hub_folder(snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.chdir(tmp_path)
    return snapshot


def test_a_data_set_of_the_hub_is_read_from_the_cache(cache: Path) -> None:
    assert rows_of("somebody/talk#plain/train") == ROWS
    assert sha256_of(locate("somebody/talk#plain/train")) == sha256_of(locate(str(cache)))
    words = ["data.train=[{path: somebody/talk, config: extra, split: test}]"]
    (source,) = load_config(SftConfig, None, words).data.train
    found = read_records(DataSource(source.address), Demonstration)
    assert [record.source for record in found.records] == ["talk"]


def test_a_data_set_that_is_not_in_the_cache_names_it_and_what_fills_it(cache: Path) -> None:
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set") as caught:
        locate("somebody/songs#train")
    assert str(cache.parents[2]) in caught.value.problem
    assert caught.value.fix.endswith("HF_HUB_OFFLINE=0 hf download somebody/songs --repo-type dataset")


@pytest.mark.parametrize("path", ["data/rows", "data/rows.jsonl", "none/rows.jsonl", "rows.parquet"])
def test_a_file_that_is_not_there_is_no_data_set_of_the_hub(cache: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no such file or folder"):
        locate(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/rows.jsonl", "rows"), ("rows.jsonl.gz", "rows"), ("org/talk#plain/train", "talk"), ("b/folder#x", "folder")],
)
def test_the_name_of_a_source(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        ("{\n  'a': 1\n}\n", "on one line"),
        ("{'prompt': '안녕?', 'response': '네'}\n", "single quotes"),
        ('{"prompt": "안녕?", "resp', "truncated"),
    ],
)
def test_lines_that_are_no_json_say_what_they_are(tmp_path: Path, content: str, fix: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="invalid JSON") as caught:
        read_records(DataSource(str(path)), Demonstration)
    assert fix in caught.value.fix


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES.decode().encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16 text") as caught:
        read_records(DataSource(str(tmp_path / "rows.jsonl")), Demonstration)
    assert caught.value.fix == "iconv -f utf-16 -t utf-8 OLD > NEW"
