"""The store keeps every click, gives rows out as asked, and its export is a ranking file."""

from __future__ import annotations

import json
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlhf.curate.answer_rows import prompt_value
from rlhf.curate.label.draft import Draft, judgement_of
from rlhf.curate.label.export import export_labels
from rlhf.curate.label.items import ITEM, LabelItem, read_items
from rlhf.curate.label.store import CLAIM_S, LabelStore, OpenRow
from rlhf.curate.output import manifest_path
from rlhf.data.records import Message, Ranking, demonstration_of
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ArtifactError, DataError


def items(number: int, answers: int = 3) -> list[LabelItem]:
    return [
        LabelItem((Message("user", f"질문 {row}"),), tuple(f"질문 {row}의 답변 {n}" for n in range(answers)), "시험")
        for row in range(number)
    ]


def store_of(folder: Path, number: int = 6, *, overlap: float = 0.0, seed: int = 17) -> LabelStore:
    store = LabelStore(folder / "labels.jsonl.sqlite", seed=seed)
    store.add_items(items(number), overlap=overlap)
    return store


def opened(store: LabelStore, who: str) -> OpenRow:
    row = store.open_row(who)
    assert row is not None
    return row


def ranked(row: OpenRow, *ranks: int, **rest) -> Draft:
    """A draft in this person's order that ranks the file's answers so."""
    tiers = [tuple(row.shown.index(n) for n, rank in enumerate(ranks) if rank == wanted) for wanted in sorted({*ranks})]
    return Draft(tuple(tiers), **rest)


def write_rows(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def export(store: LabelStore, folder: Path, merge="majority") -> list[dict]:
    out = folder / "labels.jsonl"
    export_labels(store, out, inputs=[], merge=merge, options={})
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_places_on_the_page_become_answers_of_the_file():
    one = items(1, answers=4)[0]
    # Shown as answers 2, 0, 3, 1. Best: place 1 (answer 0); then places 0 and 3 (answers 2, 1) tie; last answer 3.
    found = judgement_of(one, "지수", "ranked", Draft(((1,), (0, 3), (2,)), 3, " 고친 답변 ", "음"), (2, 0, 3, 1))
    assert found.ranks == (1, 2, 2, 4)
    assert (found.edit, found.edit_of, found.comment) == ("고친 답변", 1, "음")
    assert judgement_of(one, "지수", "bad", Draft(((1,),)), (2, 0, 3, 1)).ranks == (1, 1, 1, 1)


def test_an_edit_that_changed_nothing_is_none():
    one = items(1)[0]
    assert judgement_of(one, "지수", "tie", Draft((), 0, one.responses[0]), (0, 1, 2)).edit == ""
    assert judgement_of(one, "지수", "tie", Draft((), 0, "  "), (0, 1, 2)).edit == ""


@pytest.mark.parametrize(
    "draft",
    [
        Draft(((0,), (0,))),
        Draft(((3,),)),
        Draft(((-1,),)),
        Draft(((),)),
        Draft((), 3, "글"),
    ],
)
def test_a_draft_that_cannot_be(tmp_path, draft):
    store = store_of(tmp_path)
    row = opened(store, "지수")
    with pytest.raises(DataError):
        store.save("지수", row.number, draft)
    assert opened(store, "지수").draft == Draft()


@pytest.mark.parametrize("texts", [{"edit_text": "가" * 20_001}, {"comment": "가" * 2_001}])
def test_a_text_that_is_too_long_is_no_draft(texts):
    with pytest.raises(ValidationError, match="at most"):
        Draft(**texts)


def test_a_ranking_needs_every_answer(tmp_path):
    store = store_of(tmp_path)
    row = opened(store, "지수")
    with pytest.raises(DataError, match="2 of 3 answers are placed"):
        store.submit("지수", row.number, "ranked", Draft(((0,), (1,))))
    store.submit("지수", row.number, "skip", Draft(((0,), (1,))))
    assert store.progress("지수")[0] == 1


def test_a_row_that_was_not_shown_cannot_be_labelled(tmp_path):
    store = store_of(tmp_path)
    row = opened(store, "지수")
    with pytest.raises(DataError, match="was not shown to 민호"):
        store.submit("민호", row.number, "tie", Draft())


def test_everything_is_there_after_a_reopening(tmp_path):
    store = store_of(tmp_path)
    first = opened(store, "지수")
    store.submit("지수", first.number, "ranked", ranked(first, 2, 1, 3))
    second = opened(store, "지수")
    store.save("지수", second.number, Draft(((1,),), 2, "고치는 중", "메모"))
    token = store.token_of("지수")
    store.close()
    again = store_of(tmp_path, seed=99)  # the orders are recorded: another seed does not change what was shown
    assert opened(again, "지수") == OpenRow(
        second.number, second.item, second.shown, Draft(((1,),), 2, "고치는 중", "메모")
    )
    assert [judgement.ranks for judgement in again.judgements()] == [(2, 1, 3)]
    assert again.token_of("지수") == token != again.token_of("민호")


def test_only_the_owner_can_read_the_file(tmp_path):
    assert stat.S_IMODE(store_of(tmp_path).path.stat().st_mode) == 0o600


def test_undo_goes_back_row_by_row(tmp_path):
    store = store_of(tmp_path)
    numbers = []
    for _ in range(3):
        row = opened(store, "지수")
        store.submit("지수", row.number, "ranked", ranked(row, 1, 2, 3))
        numbers.append(row.number)
    ahead = opened(store, "지수").number
    assert store.undo("지수")
    assert opened(store, "지수").number == numbers[2]
    assert store.undo("지수")
    back = opened(store, "지수")
    assert back.number == numbers[1]
    assert back.draft == ranked(back, 1, 2, 3)
    assert len(store.judgements()) == 1
    for number in (*numbers[1:], ahead):
        assert opened(store, "지수").number == number
        store.submit("지수", number, "tie", Draft())
    assert not store.undo("민호")


def test_orders_differ_by_person_and_follow_the_seed(tmp_path):
    def orders(folder: str, who: str, seed: int) -> list[tuple[int, tuple[int, ...]]]:
        store, seen = store_of(tmp_path / folder, 12, overlap=1, seed=seed), []
        while (row := store.open_row(who)) is not None:
            seen.append((row.number, row.shown))
            store.submit(who, row.number, "tie", Draft())
        return seen

    first = orders("a", "지수", 17)
    assert sorted(number for number, _ in first) == list(range(1, 13))
    assert len({shown for _, shown in first}) > 2
    assert orders("b", "지수", 17) == first
    assert orders("c", "민호", 17) != first
    assert orders("d", "지수", 18) != first


def test_the_overlap_goes_to_everyone_and_the_rest_to_one(tmp_path):
    store = store_of(tmp_path, 10, overlap=0.3)
    seen: dict[str, set[int]] = {"지수": set(), "민호": set()}
    while any(store.progress(who)[1] for who in seen):
        for who, numbers in seen.items():
            if (row := store.open_row(who)) is not None:
                numbers.add(row.number)
                store.submit(who, row.number, "ranked", ranked(row, 1, 2, 3))
    assert len(seen["지수"] & seen["민호"]) == 3
    assert len(seen["지수"] | seen["민호"]) == 10


def test_people_at_the_same_time_get_different_rows(tmp_path):
    store = store_of(tmp_path, 16)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda number: opened(store, f"사람{number}").number, range(16)))
    assert sorted(rows) == list(range(1, 17))


def test_skipped_and_forgotten_rows_go_to_somebody_else(tmp_path):
    store = store_of(tmp_path, 1)
    number = opened(store, "지수").number
    assert store.open_row("민호") is None
    store.submit("지수", number, "skip", Draft())
    assert opened(store, "민호").number == number
    assert store.open_row("하나") is None  # 민호 has it open
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE work SET updated_s = updated_s - ?", (CLAIM_S + 1,))
    assert opened(store, "하나").number == number


def test_rows_may_be_added_but_labelled_rows_not_taken_away(tmp_path):
    store = store_of(tmp_path, 2)
    row = opened(store, "지수")
    store.submit("지수", row.number, "tie", Draft())
    assert store.add_items(items(5)) == 3
    assert store.progress("지수")[1] == 4
    rest = [one for one in items(5) if one != row.item]
    with pytest.raises(DataError, match="holds labels of 1 rows that are not in --in"):
        store.add_items(rest)
    assert store.num_items() == 5


def test_a_file_that_is_no_store(tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_text("아무 글" * 2000, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"labels\.sqlite: is not a SQLite database"):
        LabelStore(path)


def test_export_loads_as_rankings(tmp_path):
    store = store_of(tmp_path, 4, overlap=1)
    verdicts = {"지수": (2, 1, 3), "민호": (2, 1, 3), "하나": (1, 2, 3)}
    for who, ranks in verdicts.items():
        for _ in range(2):
            row = opened(store, who)
            store.submit(who, row.number, "ranked", ranked(row, *ranks, edit_of=0, edit_text=f"{who}의 답변"))
    rows = export(store, tmp_path)
    loaded = read_records(DataSource(str(tmp_path / "labels.jsonl")), Ranking)
    assert loaded.report.format == "ranking"
    assert len(loaded.records) == len(rows) == len({row["prompt"] for row in rows})
    best = demonstration_of(loaded.records[0]).messages[-1].content
    assert best.endswith("의 답변")
    assert {record.source for record in loaded.records} == {"시험"}
    manifest = json.loads(manifest_path(tmp_path / "labels.jsonl").read_text(encoding="utf-8"))
    assert manifest["agreement"]["judgements"] == 6
    assert manifest["dropped"].get("not labelled yet", 0) == 4 - len(rows)
    single = export(store, tmp_path, merge="none")
    assert sorted(row["annotators"][0] for row in single) == sorted([*verdicts] * 2)
    assert all(row["ranks"] == [1 + rank for rank in verdicts[row["annotators"][0]]] + [1] for row in single)
    assert len(read_records(DataSource(str(tmp_path / "labels.jsonl")), Ranking).records) == 6


def test_an_export_without_labels_leaves_the_file_alone(tmp_path):
    store = store_of(tmp_path, 1)
    (tmp_path / "labels.jsonl").write_text("before\n", encoding="utf-8")
    store.submit("지수", opened(store, "지수").number, "skip", Draft())
    with pytest.raises(DataError, match="nothing has been labelled yet"):
        export(store, tmp_path)
    assert (tmp_path / "labels.jsonl").read_text(encoding="utf-8") == "before\n"


def test_rows_of_every_shape_are_read(tmp_path):
    talk = [
        {"role": "user", "content": "하나"},
        {"role": "assistant", "content": "둘"},
        {"role": "user", "content": "셋"},
    ]
    rows = (
        {"prompt": "안녕?", "responses": ["가", "나"], "models": ["sft", "ppo"], "id": 7, "source": "인사"},
        {"prompt": talk, "responses": ["가", "나", "다"], "ranks": [3, 1, 2], "scores": [0.1, 3.0, 2.0]},
        {"prompt": "고르기", "chosen": "좋은 답", "rejected": "나쁜 답"},
        {"prompt": "안녕?", "responses": ["가", "나"]},
        {"prompt": "하나뿐", "responses": ["가"]},
        {"prompt": "많아요", "responses": [f"답 {n}" for n in range(10)]},
        {"prompt": "모름", "responses": ["가", "나"], "models": ["sft"]},
        {"prompt": "답 없음"},
    )
    found, problems = read_items(write_rows(tmp_path / "in.jsonl", *rows))
    assert [len(one.responses) for one in found] == [2, 3, 2]
    assert (found[0].id, found[0].models, found[0].source) == ("7", ("sft", "ppo"), "인사")
    assert prompt_value(found[1].prompt) == talk
    assert [ITEM.validate_json(ITEM.dump_json(one)) for one in found] == list(found)
    assert [problem.partition(":")[0] for problem in problems] == [
        "line 4",
        "line 5, key `responses`",
        "line 6",
        "line 7, key `models`",
        "line 8",
    ]


def test_a_file_without_rows_to_label(tmp_path):
    with pytest.raises(DataError, match="no row can be labelled; line 1: no answers to rank"):
        read_items(write_rows(tmp_path / "in.jsonl", {"prompt": "답 없음"}))
