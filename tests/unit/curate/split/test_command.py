"""No question is in files of two splits, whatever its stage, its file, and the call that divided it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.output import manifest_path
from rlhf.curate.split.assign import RowPrompt, assign
from rlhf.curate.split.command import SplitOptions, check_apart, read_assignments, split_files
from rlhf.data.records import Demonstration, Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError
from rlhf.evaluate.reward.leakage import last_question

SHARES = {"train": 0.5, "dev": 0.25, "test": 0.25}
PLACES = [
    "강릉",
    "속초",
    "여수",
    "통영",
    "경주",
    "부산",
    "전주",
    "제주",
    "춘천",
    "목포",
    "남해",
    "거제",
    "포항",
    "울산",
]
VERBS = ["걷기 좋은 길", "맛있는 국밥집", "비 오는 날 실내 전시", "아이와 갈 숲", "밤에 보는 바다", "조용한 책방"]
QUESTIONS = [f"{verb} 알려 줘, {place}에서" for place in PLACES for verb in VERBS]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def stages(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of three stages whose questions overlap, two in three of each written a little differently."""
    endings = ["", "!", "  "]
    sft = [{"prompt": text, "response": "네, 알려 드릴게요.", "id": n} for n, text in enumerate(QUESTIONS[:60])]
    preference = [
        {"prompt": text + endings[n % 3], "chosen": "그럼요!", "rejected": "싫어."}
        for n, text in enumerate(QUESTIONS[20:])
    ]
    chat = [
        {"messages": [{"role": "user", "content": "심심해"}, {"role": "assistant", "content": "그럼 놀러 가요."},
                      {"role": "user", "content": text}]}
        for text in QUESTIONS[::3]
    ]  # fmt: skip
    found = {"sft": sft, "preference": preference, "prompts": chat}
    for name, rows in found.items():
        written(folder / f"{name}.jsonl", rows)
    return found


def questions_by_split(folder: Path) -> dict[str, set[str]]:
    """What every written file asks, read as training reads it, normalised as the report card's leakage check does."""
    kinds: dict[str, type[Any]] = {"sft": Demonstration, "preference": Ranking, "prompts": Prompt}
    found: dict[str, set[str]] = {}
    for split in ("train", "dev", "test"):
        for name, kind in kinds.items():
            path = folder / f"{name}_{split}.jsonl"
            if path.exists() and path.stat().st_size:
                for record in read_records(DataSource(str(path)), kind).records:
                    turns = record.prompt if isinstance(record, Ranking) else record.messages
                    found.setdefault(split, set()).add(last_question(turns).rstrip("! "))
    return found


@pytest.mark.parametrize("together", [True, False], ids=["one call", "a call a stage"])
def test_a_question_is_in_one_split_over_all_stages(tmp_path: Path, together: bool) -> None:
    rows = stages(tmp_path)
    out, options = tmp_path / "split", {"shares": SHARES, "seed": 3, "threshold": 0.9}
    paths = [str(tmp_path / f"{name}.jsonl") for name in rows]
    for group in [paths] if together else [[path] for path in paths]:
        split_files(SplitOptions(tuple(group), out, **options))
    found = questions_by_split(out)
    assert set(found) == {"train", "dev", "test"}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["dev"]
    assert not found["dev"] & found["test"]
    for name, given in rows.items():
        divided = [row for split in found for row in read(out / f"{name}_{split}.jsonl")]
        assert sorted(map(json.dumps, divided)) == sorted(map(json.dumps, given))  # every row, as it was
    assert check_apart(out) == 9


def drawn(text: str, seed: int) -> float:
    return int(hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()[:16], 16) / 16**16


def test_the_smallest_member_and_the_seed_decide() -> None:
    prompts = [RowPrompt(text, text) for text in QUESTIONS]
    found = assign(prompts, {}, shares=SHARES, seed=17, threshold=1.0)
    assert found.num_clusters == len(QUESTIONS)
    for text in QUESTIONS:
        point = drawn(text, 17)
        assert found.splits[text] == ("train" if point < 0.5 else "dev" if point < 0.75 else "test")
    assert assign(prompts[::-1], {}, shares=SHARES, seed=17, threshold=1.0).splits == found.splits
    assert assign(prompts, {}, shares=SHARES, seed=18, threshold=1.0).splits != found.splits
    pair = [RowPrompt(f"{QUESTIONS[0]}!", f"{QUESTIONS[0]}!"), RowPrompt(QUESTIONS[0], QUESTIONS[0])]
    both = assign(pair, {}, shares=SHARES, seed=17, threshold=0.8)
    assert (both.num_clusters, both.largest) == (1, 2)
    assert set(both.splits.values()) == {found.splits[QUESTIONS[0]]}


def test_near_duplicates_join_through_others_and_a_row_joins_its_two_texts() -> None:
    near = ["바다가 보이는 조용한 숙소를 찾아 줘", "바다가 보이는 조용한 숙소를 찾아 줘요", "전혀 다른 이야기"]
    prompts = [
        *(RowPrompt(text, text) for text in near),
        RowPrompt("응", "여행 갈까? 좋지. 응"),
        RowPrompt("응", "밥 먹자. 응"),
    ]
    found = assign(prompts, {}, shares=SHARES, seed=1, threshold=0.5)
    assert found.num_clusters == 3  # the two rooms, the other story, and all that ends in 응
    assert found.largest == 3
    assert found.splits["응"] == found.splits["여행 갈까? 좋지. 응"] == found.splits["밥 먹자. 응"]


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        ({"바다가 보이는 숙소를 찾아 줘": "dev"}, "dev"),
        ({"바다가 보이는 숙소를 찾아 줘": "train", "바다가 보이는 숙소를 찾아 줘!!": "dev"}, "dev"),
        ({"바다가 보이는 숙소를 찾아 줘": "train", "바다가 보이는 숙소를 찾아 줘!!": "test"}, "test"),
        ({"바다가 보이는 숙소를 찾아 줘": "dev", "바다가 보이는 숙소를 찾아 줘!!": "test"}, "test"),
    ],
)
def test_new_prompts_follow_earlier_ones_test_first(earlier: dict[str, str], expected: str) -> None:
    new = "바다가 보이는 숙소를 찾아 줘!"
    prompts = [RowPrompt(text, text) for text in (*earlier, new)]
    found = assign(prompts, earlier, shares={"train": 1.0}, seed=1, threshold=0.5)
    assert found.splits == {**earlier, new: expected}
    assert len(found.conflicts) == (len(earlier) > 1)


def test_a_second_call_keeps_what_the_first_decided(tmp_path: Path) -> None:
    stages(tmp_path)
    out, source = tmp_path / "split", str(tmp_path / "sft.jsonl")
    split_files(SplitOptions((source,), out, SHARES, seed=3, threshold=0.9))
    before = read_assignments(out / "assignments.jsonl")
    report = split_files(SplitOptions((source,), out, {"train": 1.0}, seed=4, threshold=0.9))
    assert report.num_kept_assignments == 60
    assert set(before.values()) == {"train", "dev", "test"}
    assert read_assignments(out / "assignments.jsonl") == before
    assert {row["id"] for row in read(out / "sft_test.jsonl")} == {
        n for n, text in enumerate(QUESTIONS[:60]) if before[text] == "test"
    }


def test_bad_inputs_leave_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "split"
    good, bad = written(tmp_path / "a" / "x.jsonl", [{"prompt": "안녕"}]), tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "안녕"}\n{"text": "안녕"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        split_files(SplitOptions((good, str(bad)), out, SHARES))
    with pytest.raises(DataError, match="two inputs are called x"):
        split_files(SplitOptions((good, written(tmp_path / "b" / "x.jsonl", [{"prompt": "안녕"}])), out, SHARES))
    with pytest.raises(DataError, match="no usable row"):
        split_files(SplitOptions((written(tmp_path / "empty.jsonl", []),), out, SHARES))
    assert not out.exists()
    report = split_files(SplitOptions((str(bad),), out, SHARES, on_bad_row="skip"))
    assert report.num_bad == 1
    assert sum(output.kept for output in report.outputs) == 1


def test_damaged_assignments_and_changed_files_are_told(tmp_path: Path) -> None:
    stages(tmp_path)
    out, source = tmp_path / "split", str(tmp_path / "sft.jsonl")
    split_files(SplitOptions((source,), out, SHARES, seed=3, threshold=0.9))
    leaked = read(out / "sft_test.jsonl")[0]
    with (out / "sft_train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**leaked, "prompt": f"  {leaked['prompt']}\n"}, ensure_ascii=False) + "\n")
    with pytest.raises(DataError, match=r"sft_test\.jsonl: a prompt that is also in sft_train\.jsonl"):
        check_apart(out)
    written(out / "stranger_train.jsonl", [leaked])  # without our manifest: not looked at
    (out / "sft_train.jsonl").unlink()
    assert check_apart(out) == 2
    (out / "assignments.jsonl").write_text('{"prompt": "안녕", "split": "val"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"assignments\.jsonl:1: not an assignment"):
        split_files(SplitOptions((source,), out, SHARES))


@pytest.mark.parametrize("shares", [{"train": 0.9}, {"train": 1.2, "dev": -0.2}, {"train": 0.9, "valid": 0.1}])
def test_shares_that_cannot_be(shares: dict[str, float]) -> None:
    with pytest.raises(DataError, match="--shares"):
        assign([RowPrompt("가", "가")], {}, shares=shares, seed=1, threshold=0.5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = stages(tmp_path)
    paths = [str(tmp_path / f"{name}.jsonl") for name in rows]
    command = ["data", "split", "--in", *paths, "--out-dir", str(tmp_path / "out"), "--threshold", "1"]
    assert main([*command, "--shares", "train=0.8,dev=0,test=0.2"]) == 0
    shown = capsys.readouterr().out
    assert "no prompt is in files of two splits (6 files read again)" in shown
    assert not list((tmp_path / "out").glob("*_dev.jsonl"))
    manifest = json.loads(manifest_path(tmp_path / "out" / "sft_test.jsonl").read_text(encoding="utf-8"))
    assert manifest["options"] == {
        "shares": {"train": 0.8, "dev": 0.0, "test": 0.2},
        "seed": 17,
        "threshold": 1.0,
        "split": "test",
    }
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--shares", "train"])
