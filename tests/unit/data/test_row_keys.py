"""A format declares the keys it reads; every other key is harmless by its name, counted, or an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlhf.data.formats import FORMATS, parse, sniff
from rlhf.data.records import Demonstration, Message, Ranking
from rlhf.data.row_keys import HARMLESS, MEANING, unread, unread_summary
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

ASK, ANSWER, RUDE = Message("user", "안녕?"), Message("assistant", "네!"), Message("assistant", "왜.")
CHAT = [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "네!"}]
QUESTION, RUDE_ANSWER = CHAT[:1], {"role": "assistant", "content": "왜."}


def read(tmp_path, rows, kind, **options: Any):
    path = tmp_path / "file.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_records(DataSource(str(path), **options), kind)


def parsed(row):
    return parse(row, sniff(row), "")


def test_unread_keys_by_path():
    reads = frozenset(("prompt", "chat[].text", "input.chat[].text"))
    row = {
        "prompt": {"anything": 1},
        "chat": [{"text": "가", "tone": "x"}, {"text": "나", "tone": None, "mood": 3}],
        "input": {"chat": [{"text": "다", "extra_key": 1}], "size": 2},
        "id": 7,
        "empty": "",
        "none": None,
        "colour": "blue",
    }
    found = [path for path, _ in unread(row, reads)]
    assert found == ["chat[].tone", "chat[].mood", "input.chat[].extra_key", "input.size", "colour"]


def test_no_name_is_both_harmless_and_meaningful():
    assert not HARMLESS & set(MEANING)
    assert len(MEANING) > 50


def test_every_key_that_a_format_needs_is_declared():
    for each in FORMATS.values():
        roots = {path.partition("[")[0] for path in each.reads}
        assert all(keys <= roots for keys in each.required)


def test_the_summary_names_the_most_frequent_first():
    assert unread_summary({}) == ""
    assert unread_summary({"a": 2, "b": 1200}) == "keys not read: b (1,200 rows), a (2 rows)"
    many = unread_summary({f"k{number}": 1 for number in range(11)})
    assert many.endswith("k7 (1 rows), and 3 more")


def test_unread_keys_are_counted_in_the_report(tmp_path):
    rows = [
        {"prompt": "안녕?", "response": "네!", "mood": "good", "id": 3},
        {"prompt": "뭐 해?", "response": "쉬어요."},
    ]
    assert read(tmp_path, rows, Demonstration).report.unread == {"mood": 1}


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"prompt": "안녕?", "response": "네!", "helpfulness": 0}, "helpfulness"),
        ({"prompt": "안녕?", "response": "네!", "rejected_response": "왜."}, "rejected_response"),
        ({"prompt": "안녕?", "response": "네!", "images": ["a.png"]}, "images"),
        ({"messages": CHAT, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": CHAT, "score": 0.1}, "score"),
        ({"messages": [CHAT[0], {**CHAT[1], "tool_calls": [1]}]}, "messages[].tool_calls"),
        ({"messages": CHAT, "input": "긴 글"}, "input"),
        ({"instruction": "안녕?", "output": "네!", "context": "긴 글"}, "context"),
        ({"prompt": "안녕?", "chosen": "네!", "rejected": "왜.", "margin": 2}, "margin"),
        ({"prompt": "안녕?", "answers": [{"answer": "네!", "rank": 1}]}, "answers"),
    ],
)
def test_a_key_that_changes_the_meaning_is_an_error_that_names_it(row, key):
    with pytest.raises(DataError, match="does not read") as caught:
        parsed(row)
    assert caught.value.where == f"key `{key}`"
    assert "rlhf data import --format" in caught.value.fix


def test_a_key_may_be_ignored_by_name(tmp_path):
    rows = [{"prompt": "안녕?", "response": "네!", "helpfulness": 0}]
    with pytest.raises(DataError, match="how good an answer is"):
        read(tmp_path, rows, Demonstration)
    found = read(tmp_path, rows, Demonstration, ignore=("helpfulness",))
    assert [record.messages for record in found.records] == [(ASK, ANSWER)]
    assert found.report.unread == {"helpfulness": 1}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": CHAT, "system": "친구야."}, [Message("system", "친구야."), ASK, ANSWER]),
        ({"prompt": "안녕?", "completion": "네!", "system": "친구야."}, [Message("system", "친구야."), ASK, ANSWER]),
        ({"prompt": "안녕?", "response": "네!", "input": "글"}, [Message("user", "안녕?", input="글"), ANSWER]),
        ({"prompt": QUESTION, "completion": CHAT[1:], "label": True}, [ASK, ANSWER]),
        (
            {"instruction": "안녕?", "output": "네!", "history": [["뭐 해?", "쉬어요."]]},
            [Message("user", "뭐 해?"), Message("assistant", "쉬어요."), ASK, ANSWER],
        ),
    ],
)
def test_keys_that_belong_to_the_question_are_honoured(row, turns):
    record = parsed(row)
    assert list(record.messages) == turns


def test_two_system_texts_contradict():
    row = {"messages": [{"role": "system", "content": "남이야."}, *CHAT], "system": "친구야."}
    with pytest.raises(DataError, match="another text than the system turn"):
        parsed(row)
    row["system"] = "남이야."
    assert parsed(row).messages[0].content == "남이야."


@pytest.mark.parametrize("key", ["label", "kto_tag"])
@pytest.mark.parametrize("row", [{"prompt": "안녕?", "completion": "왜."}, {"messages": [*QUESTION, RUDE_ANSWER]}])
def test_a_bad_answer_is_no_demonstration(row, key):
    with pytest.raises(DataError, match="says that the answer is bad") as caught:
        parsed({**row, key: False})
    assert "--format kto" in caught.value.fix
    assert isinstance(parsed({**row, key: True}), Demonstration)
    with pytest.raises(DataError, match="is 1"):
        parsed({**row, key: 1})


def test_weights_of_turns():
    turns = [*CHAT, *QUESTION, RUDE_ANSWER]
    turns[1] = {**turns[1], "weight": 0}
    assert [turn.learn for turn in parsed({"messages": turns}).messages] == [True, False, True, True]
    turns[3] = {**turns[3], "loss": False}
    with pytest.raises(DataError, match="every answer has weight 0"):
        parsed({"messages": turns})
    turns[3] = {**turns[3], "weight": 1}
    with pytest.raises(DataError, match="weight and loss contradict"):
        parsed({"messages": turns})
    with pytest.raises(DataError, match=r"is 0\.5"):
        parsed({"messages": [CHAT[0], {**CHAT[1], "weight": 0.5}]})


def test_scores_of_a_pair():
    pair = {"prompt": "안녕?", "chosen": "네!", "rejected": "왜."}
    assert parsed({**pair, "score_chosen": 8.5, "score_rejected": 4}) == Ranking(
        (ASK,), ("네!", "왜."), (1, 2), "", (8.5, 4.0)
    )
    assert parsed({**pair, "chosen-rating": 5, "rejected-rating": 5}).all_tied
    with pytest.raises(DataError, match="is higher than `score_chosen`: 6 against 3"):
        parsed({**pair, "score_chosen": 3, "score_rejected": 6})
    with pytest.raises(DataError, match="1 scores for 2 answers"):
        parsed({**pair, "score_chosen": 3})


def test_a_conversation_beside_a_pair_must_repeat_it():
    pair = {"prompt": "안녕?", "chosen": CHAT, "rejected": [*QUESTION, RUDE_ANSWER]}
    for same in (CHAT, QUESTION):
        assert parsed({**pair, "messages": same}).responses == ("네!", "왜.")
    with pytest.raises(DataError, match="neither the prompt nor"):
        parsed({**pair, "messages": [{"role": "user", "content": "뭐 해?"}]})


def test_rows_of_public_formats_name_their_import(tmp_path):
    transcript = {"chosen": "\n\nHuman: 안녕?\n\nAssistant: 네!", "rejected": "\n\nHuman: 안녕?\n\nAssistant: 왜."}
    with pytest.raises(DataError, match="is a transcript") as caught:
        read(tmp_path, [transcript], Ranking)
    assert "rlhf data import --format hh" in caught.value.fix
    shp = {"history": "안녕?", "human_ref_A": "네!", "human_ref_B": "왜.", "labels": 1}
    with pytest.raises(DataError, match="no known format") as caught:
        read(tmp_path, [shp], Ranking)
    assert "rlhf data import --format shp" in caught.value.fix
    kto = {"prompt": "안녕?", "completion": "네!", "label": True}
    with pytest.raises(DataError, match="has no Ranking") as caught:
        read(tmp_path, [kto], Ranking)
    assert "rlhf data import --format kto" in caught.value.fix
