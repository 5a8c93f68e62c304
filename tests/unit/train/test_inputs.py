"""Rows that are read and then refused by the encoder: named by file and line, or skipped and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.config.schema import SftConfig
from rlhf.config.sections import DataSection, TrainingAnswers
from rlhf.data.encode import Encoder
from rlhf.data.records import Demonstration, Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import DataError
from rlhf.train.inputs import load, load_first, load_train_and_eval

EOS = "<|endoftext|>"
GOOD = {"prompt": "안녕?", "response": "안녕하세요!"}
BAD = {"prompt": "안녕?", "response": EOS}
REASON = "the assistant turn has nothing but special-token text"


def write(folder: Path, *rows: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sections(path: str, on_bad_row: str, **source: Any) -> tuple[DataSection, list[TrainingAnswers]]:
    sources = [TrainingAnswers.model_validate({"path": path, **source})]
    return DataSection(on_bad_row=on_bad_row), sources  # type: ignore[arg-type]


def test_a_refused_row_is_named_by_file_and_line(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, GOOD, BAD)
    data, sources = sections(path, "error")
    with pytest.raises(DataError, match=REASON) as caught:
        load(data, sources, Demonstration, Encoder(chat_tokenizer, 64).demonstrations, key="data.train")
    assert caught.value.where == f"{path}:3"


def test_a_refused_row_is_skipped_and_counted(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    """Of 5 rows one is no record and two are refused by the encoder."""
    path = write(tmp_path, BAD, GOOD, {"prompt": ""}, GOOD, BAD)
    data, sources = sections(path, "skip", format="prompt-response")
    loaded = load(data, sources, Demonstration, Encoder(chat_tokenizer, 64).demonstrations, key="data.train")
    assert len(loaded.items) == 2
    assert loaded.sizes == (2,)
    (report,) = loaded.reports
    assert (report["num_rows"], report["num_kept"], report["num_skipped"]) == (5, 2, 3)
    assert [line for line in report["skipped"] if REASON in line] == [f"line 1: {REASON}", f"line 5: {REASON}"]


def test_a_row_of_several_answers_goes_as_a_whole(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": "안녕?", "responses": ["네!", last], "ranks": [1, 2]} for last in ("왜.", EOS, "응.")]
    data, sources = sections(write(tmp_path, *rows), "skip", answers="all")
    loaded = load(data, sources, Demonstration, Encoder(chat_tokenizer, 64).demonstrations, key="data.train")
    assert len(loaded.items) == 4
    assert (loaded.reports[0]["num_kept"], loaded.reports[0]["num_skipped"]) == (2, 1)


def test_a_source_without_one_usable_row_is_an_error(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    data, sources = sections(write(tmp_path, BAD, BAD), "skip")
    with pytest.raises(DataError, match="none of 2 rows can be used: 2 bad"):
        load(data, sources, Demonstration, Encoder(chat_tokenizer, 64).demonstrations, key="data.train")


def test_the_limit_counts_usable_rows(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    data, sources = sections(write(tmp_path, GOOD, BAD, GOOD, GOOD), "skip")
    encode = Encoder(chat_tokenizer, 64).demonstrations
    assert len(load(data, sources, Demonstration, encode, key="data.eval", limit=2).items) == 2


def test_prompts_of_all_sources_have_numbers_of_their_own(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "안녕?"}, {"prompt": EOS}, {"prompt": "누구세요?"})
    data, sources = sections(path, "skip")
    loaded = load(data, [*sources, *sources], Prompt, Encoder(chat_tokenizer, 64).prompts, key="data.train")
    assert [item.row for item in loaded.items] == [0, 1, 2, 3]


def test_the_first_rows_are_read_alone(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, BAD, GOOD)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("{not a row\n")
    data, sources = sections(path, "skip")
    items = load_first(data, sources[0], Demonstration, Encoder(chat_tokenizer, 64).demonstrations, 3)
    assert len(items) == 2


def test_training_and_held_out_rows_are_read_and_summed_up_apart(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    """Three training rows, and of two held-out rows the first, by eval.max_rows."""
    (tmp_path / "eval").mkdir()
    paths = {"train": [write(tmp_path, GOOD, GOOD, GOOD)], "eval": [write(tmp_path / "eval", GOOD, GOOD)]}
    config = SftConfig.model_validate({"data": paths, "eval": {"max_rows": 1}})
    encoder = Encoder(chat_tokenizer, 128)
    (train, summary), (held_out, held_out_summary) = load_train_and_eval(
        config, Demonstration, encoder, lambda each: each.demonstrations
    )
    assert (len(train.items), len(held_out.items)) == (3, 1)
    tokens = len(train.items[0])
    assert (summary, held_out_summary) == (f"3 rows, {3 * tokens} tokens", f"1 rows, {tokens} tokens")
    alone = config.model_copy(update={"data": config.data.model_copy(update={"eval": []})})
    _, (nothing, _) = load_train_and_eval(alone, Demonstration, encoder, lambda each: each.demonstrations)
    assert nothing.items == []


def test_what_is_left_out_is_said_at_the_start(chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    tied = {"prompt": "안녕?", "responses": ["네!", "왜."], "ranks": [1, 1], "mood": "x"}
    ranked = {**tied, "ranks": [1, 2]}
    path = write(tmp_path, ranked, tied, {"prompt": ""}, {**ranked, "tone": "y"})
    config = SftConfig.model_validate({"data": {"train": path, "on_bad_row": "skip"}})
    encoder = Encoder(chat_tokenizer, 256)
    (_, said), _ = load_train_and_eval(config, Demonstration, encoder, lambda each: each.demonstrations)
    left_out = (
        "rows: 1 bad rows skipped, 1 rankings left out because all tie, keys not read: mood (3 rows), tone (1 rows)"
    )
    assert said.endswith(f"; {left_out}")
