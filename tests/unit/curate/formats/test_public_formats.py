"""Rows of the public data sets: what each becomes, and that no key of it is lost without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.formats.importing import ImportOptions, import_files
from rlhf.curate.formats.registry import JUDGEMENTS
from rlhf.curate.output import manifest_path
from rlhf.data.public_shapes import public_shape
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

Row = dict[str, Any]


def user(text: str, **more: Any) -> Row:
    return {"role": "user", "content": text, **more}


def said(text: str, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def pair(question: str = "책 추천해 줘", better: str = "소설 어때요?", worse: str = "몰라요.", **more: Any) -> Row:
    return {"prompt": [user(question)], "chosen": better, "rejected": worse, **more}


def human(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[index % 2]}: {text}" for index, text in enumerate(turns))


def imported(folder: Path, rows: list[Row], **options: Any) -> list[Row]:
    source, out = folder / "rows.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    import_files(ImportOptions((str(source),), out, **options))
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row in written:
        del row["source"]
    return written


def manifest(folder: Path) -> Row:
    return json.loads(manifest_path(folder / "out.jsonl").read_text(encoding="utf-8"))


ASKED, GOOD, BAD = "책 추천해 줘", "소설 어때요?", "몰라요."
CHAT = [user(ASKED), said(GOOD)]

# format, row, what it becomes
ONE_ROW = [
    ("hh", {"chosen": human(ASKED, GOOD), "rejected": human(ASKED, BAD)}, pair()),
    (
        "hh",
        {"chosen": human("안녕", "네", ASKED, GOOD), "rejected": human("안녕", "네", ASKED, BAD)},
        {"prompt": [user("안녕"), said("네"), user(ASKED)], "chosen": GOOD, "rejected": BAD},
    ),
    (  # UltraFeedback, binarized
        "hh",
        {
            "prompt": ASKED,
            "prompt_id": "a1",
            "chosen": CHAT,
            "rejected": [user(ASKED), said(BAD)],
            "messages": CHAT,
            "score_chosen": 9.0,
            "score_rejected": 2.5,
        },
        pair(score_chosen=9.0, score_rejected=2.5),
    ),
    (  # UltraFeedback, cleaned
        "hh",
        {
            "source": "x",
            "prompt": ASKED,
            "chosen": CHAT,
            "chosen-rating": 5,
            "chosen-model": "a",
            "rejected": [user(ASKED), said(BAD)],
            "rejected-rating": 3,
            "rejected-model": "b",
        },
        pair(score_chosen=5.0, score_rejected=3.0),
    ),
    (  # UltraFeedback as collected
        "ultrafeedback",
        {
            "instruction": ASKED,
            "models": ["a", "b"],
            "completions": [
                {"model": "a", "response": BAD, "overall_score": 2.0, "fine-grained_score": 4.0},
                {"model": "b", "response": GOOD, "overall_score": 8.5, "fine-grained_score": 3.0},
            ],
        },
        {"prompt": [user(ASKED)], "responses": [BAD, GOOD], "scores": [2.0, 8.5]},
    ),
    (  # HelpSteer 2, preferences: a negative strength prefers the first answer
        "helpsteer",
        {"split": "train", "prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference_strength": -2},
        pair(),
    ),
    (
        "helpsteer",
        {
            "prompt": f"안녕\n<extra_id_1>Assistant\n네\n<extra_id_1>User\n{ASKED}",
            "response_1": BAD,
            "response_2": GOOD,
            "preference_strength": 3,
        },
        {"prompt": [user("안녕"), said("네"), user(ASKED)], "chosen": GOOD, "rejected": BAD},
    ),
    (  # HelpSteer 3
        "helpsteer",
        {
            "domain": "general",
            "language": "korean",
            "context": [user(ASKED)],
            "response1": BAD,
            "response2": GOOD,
            "overall_preference": 1,
        },
        pair(),
    ),
    (
        "nectar",
        {
            "prompt": human(ASKED) + "\n\nAssistant: ",
            "answers": [
                {"answer": GOOD, "model": "a", "rank": 1.0},
                {"answer": BAD, "model": "b", "rank": 3.0},
                {"answer": "시집이요.", "model": "c", "rank": 2.0},
            ],
            "turns": 1,
            "num_responses": 3,
            "source": ["x"],
        },
        {"prompt": [user(ASKED)], "responses": [GOOD, BAD, "시집이요."], "ranks": [1, 3, 2]},
    ),
    (
        "shp",
        {"post_id": "p", "domain": "d", "history": ASKED, "human_ref_A": BAD, "human_ref_B": GOOD, "labels": 0}
        | {"score_A": 2, "score_B": 9, "score_ratio": 4.5, "c_root_id_A": "x", "seconds_difference": 3.0},
        pair(score_chosen=9.0, score_rejected=2.0),
    ),
    (
        "pku",
        {"prompt": ASKED, "response_0": BAD, "response_1": GOOD, "better_response_id": 1, "safer_response_id": 1}
        | {"is_response_0_safe": True, "is_response_1_safe": True},
        pair(),
    ),
    (
        "arena",
        {"question_id": "q", "model_a": "a", "model_b": "b", "winner": "model_b", "judge": "j", "turn": 1}
        | {"conversation_a": [user(ASKED), said(BAD)], "conversation_b": CHAT, "language": "Korean"},
        pair(),
    ),
    (
        "arena",
        {"id": 3, "model_a": "a", "model_b": "b", "prompt": json.dumps([ASKED]), "response_a": json.dumps([GOOD])}
        | {"response_b": json.dumps([BAD]), "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        pair(),
    ),
    ("stack-exchange", {"qid": 4, "question": ASKED, "response_j": GOOD, "response_k": BAD}, pair()),
    (
        "openai",
        {"input": {"messages": [user(ASKED)]}, "preferred_output": [said(GOOD)], "non_preferred_output": [said(BAD)]},
        pair(),
    ),
    (  # LLaMA-Factory: preferences of ShareGPT rows
        "hh",
        {"conversations": [{"from": "human", "value": ASKED}], "chosen": {"from": "gpt", "value": GOOD}}
        | {"rejected": {"from": "gpt", "value": BAD}},
        pair(),
    ),
    (  # LLaMA-Factory: preferences of Alpaca rows
        "hh",
        {"instruction": ASKED, "input": "짧은 걸로", "chosen": GOOD, "rejected": BAD},
        {"prompt": [user(ASKED, input="짧은 걸로")], "chosen": GOOD, "rejected": BAD},
    ),
    (
        "hh",
        {"system": "사서처럼", "question": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": [{"role": "system", "content": "사서처럼"}, user(ASKED)], "chosen": GOOD, "rejected": BAD},
    ),
    ("hh", {"messages": CHAT, "rejected_response": BAD}, pair()),  # ms-swift
    ("hh", {"messages": CHAT, "rejected_messages": [user(ASKED), said(BAD)]}, pair()),
    ("hh", {"prompt": [user(ASKED)], "chosen": [said(GOOD)], "rejected": [said(BAD)]}, pair()),  # TRL
    (  # LLaMA-Factory: earlier turns and a system text
        "alpaca",
        {"instruction": ASKED, "input": "", "output": GOOD, "system": "사서처럼", "history": [["안녕", "네"]]},
        {"messages": [{"role": "system", "content": "사서처럼"}, user("안녕"), said("네"), *CHAT]},
    ),
    (
        "csv",
        {"query": ASKED, "response": GOOD, "history": [["안녕", "네"]]},
        {"messages": [user("안녕"), said("네"), *CHAT]},
    ),
    (
        "alpaca",
        {"instruction": ASKED, "context": "짧은 걸로", "output": GOOD},
        {"messages": [user(ASKED, input="짧은 걸로"), said(GOOD)]},
    ),
    ("messages", {"conversation": [{"human": ASKED, "assistant": GOOD}]}, {"messages": CHAT}),  # ms-swift
    (  # hosted fine-tuning: the turn is masked and the row is kept
        "messages",
        {"messages": [user("안녕"), said("왜", weight=0), user(ASKED), said(GOOD, weight=1)]},
        {"messages": [user("안녕"), said("왜", weight=0), *CHAT]},
    ),
    (  # ms-swift's mask
        "messages",
        {"messages": [user("안녕"), said("왜", loss=False), user(ASKED), said(GOOD, loss=True)]},
        {"messages": [user("안녕"), said("왜", weight=0), *CHAT]},
    ),
    ("openai", {"prompt": [user(ASKED)], "completion": [said(GOOD)]}, {"messages": CHAT}),  # TRL
]


@pytest.mark.parametrize(("name", "row", "expected"), ONE_ROW)
def test_a_row_of_each_format(tmp_path: Path, name: str, row: Row, expected: Row) -> None:
    assert public_shape(row) == name
    assert imported(tmp_path, [row]) == [expected]
    assert manifest(tmp_path)["keys not read"] == {}
    kind = Demonstration if "messages" in expected else Ranking
    assert len(read_records(DataSource(str(tmp_path / "out.jsonl")), kind).records) == 1


KTO = [
    ([{"prompt": ASKED, "completion": GOOD, "label": True}, {"prompt": ASKED, "completion": BAD, "label": False}]),
    (
        [
            {"prompt": [user(ASKED)], "completion": [said(GOOD)], "label": True},
            {"prompt": [user(ASKED)], "completion": [said(BAD)], "label": False},
        ]
    ),
    ([{"messages": CHAT, "label": True}, {"messages": [user(ASKED), said(BAD)], "label": False}]),
    ([{"messages": CHAT, "rating": "up"}, {"messages": [user(ASKED), said(BAD)], "rating": "down"}]),
    (
        [
            {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": GOOD}], "kto_tag": True},
            {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": BAD}], "kto_tag": False},
        ]
    ),
    (
        [
            {"instruction": ASKED, "input": "", "output": GOOD, "kto_tag": True},
            {"instruction": ASKED, "input": "", "output": BAD, "kto_tag": False},
        ]
    ),
]


@pytest.mark.parametrize("rows", KTO)
def test_judged_answers_find_their_partner(tmp_path: Path, rows: list[Row]) -> None:
    other = json.loads(json.dumps(rows[0], ensure_ascii=False).replace(ASKED, "영화 추천해 줘"))
    assert imported(tmp_path, [rows[0], other, rows[1]]) == [
        {"prompt": [user(ASKED)], "responses": [GOOD, BAD], "scores": [1.0, 0.0]}
    ]
    assert manifest(tmp_path)["dropped"] == {"one judged answer to its prompt, which stage 2 cannot compare": 1}
    assert imported(tmp_path, [rows[0], rows[1], other], good=1) == [
        {"messages": CHAT},
        {"messages": [user("영화 추천해 줘"), said(GOOD)]},
    ]
    assert manifest(tmp_path)["dropped"] == {"an answer of a score below 1": 1}


def test_an_answer_without_a_partner_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which stage 2 cannot compare") as caught:
        imported(tmp_path, [{"prompt": ASKED, "completion": BAD, "label": False}])
    assert "--good" in caught.value.fix


def test_contradicting_labels_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "completion": text, "label": good} for text, good in ((GOOD, True), (BAD, False))]
    imported(tmp_path, [*rows, {**rows[0], "label": False}])
    assert manifest(tmp_path)["dropped"] == {"an answer that an earlier row judges differently": 1}


def test_scores_of_single_answers(tmp_path: Path) -> None:
    judged = {"correctness": 1, "coherence": 4, "complexity": 1, "verbosity": 1}
    rows = [
        {"prompt": ASKED, "response": GOOD, "helpfulness": 4, **judged},
        {"prompt": ASKED, "response": BAD, "helpfulness": 0, **judged, "correctness": 3},
    ]
    assert imported(tmp_path, rows)[0]["scores"] == [4.0, 0.0]
    assert imported(tmp_path, rows, by="correctness")[0]["scores"] == [1.0, 3.0]
    with pytest.raises(DataError, match="all answers tie"):
        imported(tmp_path, rows, by="coherence")
    with pytest.raises(DataError, match="--by kindness") as caught:
        imported(tmp_path, rows, by="kindness")
    assert all(name in caught.value.expected for name in JUDGEMENTS["helpsteer"])


def test_the_judgement_can_be_chosen(tmp_path: Path) -> None:
    _, feedback, _ = next(each for each in ONE_ROW if each[0] == "ultrafeedback")
    assert imported(tmp_path, [feedback], by="fine-grained_score")[0]["scores"] == [4.0, 3.0]
    _, safe, _ = next(each for each in ONE_ROW if each[0] == "pku")
    divided = {**safe, "safer_response_id": 0, "is_response_0_safe": False, "is_response_1_safe": False}
    assert imported(tmp_path, [divided]) == [pair()]
    assert manifest(tmp_path)["counts"] == {
        "pairs whose better answer is not the safer one; better was taken": 1,
        "pairs of which both answers are labelled unsafe": 1,
    }
    assert imported(tmp_path, [divided], by="safer") == [pair(better=BAD, worse=GOOD)]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": human(ASKED, GOOD), "rejected": human(ASKED, "")}, "ends in an empty turn"),
        ({"chosen": human(ASKED, GOOD), "rejected": human("야", BAD)}, "differs from `chosen`"),
        (pair(score_chosen=5, score_rejected=5), "the same score"),
        (pair(score_chosen=3, score_rejected=5), "is higher than `score_chosen`"),
        ({"prompt": "야", "chosen": CHAT, "rejected": [user(ASKED), said(BAD)]}, "not in the turns"),
        ({**pair(), "messages": [user("야")]}, "neither the prompt nor"),
        ({"chosen": GOOD, "rejected": BAD}, "no prompt is given"),
        ({"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference_strength": 0}, "all answers tie"),
        ({"prompt": ASKED, "response_1": GOOD, "response_2": BAD, "preference_strength": 9}, "is 9"),
        ({"history": ASKED, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 2}, "is 2"),
        ({"prompt": ASKED, "answers": [{"answer": GOOD, "rank": 1}, {"answer": BAD}]}, "score None"),
        ({"winner": "tie (bothbad)", "conversation_a": CHAT, "conversation_b": [user(ASKED), said(BAD)]}, "tie"),
        (
            {"winner": "model_a", "conversation_a": [*CHAT, *CHAT]}
            | {"conversation_b": [user(ASKED), said(BAD), *CHAT]},
            "differ before their last answers",
        ),
        ({"question": ASKED, "answer": [GOOD, BAD]}, "nothing says which is better"),
        ({"instruction": ASKED, "output": [GOOD, BAD]}, "nothing says which is better"),
        ({"messages": CHAT, "tools": [{"type": "function"}]}, "calls of tools"),
        ({"messages": CHAT, "images": ["a.png"]}, "pictures"),
        ({"prompt": ASKED, "response": GOOD, "score": 1}, "how good an answer is"),
        (pair(margin=3), "how good an answer is"),
    ],
)
def test_rows_that_are_refused_with_their_reason(tmp_path: Path, row: Row, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        imported(tmp_path, [row])


def test_a_refused_key_can_be_left_out(tmp_path: Path) -> None:
    assert imported(tmp_path, [pair(margin=3)], ignore=("margin",)) == [pair()]
    assert manifest(tmp_path)["keys not read"] == {str(tmp_path / "rows.jsonl"): {"margin": 1}}


def test_what_is_not_read_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"messages": [*CHAT, user("고마워")], "mood": "good"},
        {"messages": [user(ASKED), {**said(BAD), "tone": "x"}]},
    ]
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert main(["data", "import", "--in", str(source), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"{source}: keys not read: mood (1 rows), messages[].tone (1 rows)" in shown
    assert "1 turns before the first question or after the last answer" in shown
