"""KoBEST by lm-eval on four rows a task and a tiny model; what its files have to hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import DataError
from rlhf.evaluate.benchmark.command import task_result
from rlhf.evaluate.benchmark.kobest import KOBEST, find_files, write_rows


def story(context: str, label: int, right: str) -> dict[str, Any]:
    endings = ["문을 칠한다.", "잠을 잔다.", "불을 끈다."]
    endings.insert(label, right)
    return {"context": context, **{f"ending_{place}": each for place, each in enumerate(endings, 1)}, "label": label}


ROWS: dict[str, list[dict[str, Any]]] = {
    "boolq": [
        {"paragraph": "바닷물은 짜다.", "question": "바닷물은 짠가?", "label": 1},
        {"paragraph": "바닷물은 짜다.", "question": "바닷물은 단가?", "label": 0},
    ],
    "copa": [
        {"premise": "비가 왔다.", "question": "결과", "alternative_1": "젖었다.", "alternative_2": "갰다.", "label": 0},
        {"premise": "졸리다.", "question": "원인", "alternative_1": "잤다.", "alternative_2": "밤샜다.", "label": 1},
    ],
    "hellaswag": [story("물을 끓인다.", 0, "라면을 넣는다."), story("우산을 편다.", 1, "빗속을 걷는다.")],
    "sentineg": [{"sentence": "배송이 빨라요.", "label": 1}, {"sentence": "포장이 찢어졌어요.", "label": 0}],
    "wic": [
        {"word": "배", "context_1": "배가 달다.", "context_2": "배를 깎았다.", "label": 1},
        {"word": "배", "context_1": "배가 고프다.", "context_2": "배를 타고 갔다.", "label": 0},
    ],
}  # fmt: skip


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def test_all_tasks_from_local_files(tmp_path: Path, tiny_neox: Path, chat_tokenizer: ChatTokenizer) -> None:
    """Our accuracy, made from the samples, is lm-eval's own."""
    pytest.importorskip("lm_eval")
    model = tmp_path / "sft" / "model"
    shutil.copytree(tiny_neox, model)
    chat_tokenizer.save(model)
    for name, rows in ROWS.items():
        write(tmp_path / "data" / f"{name}.jsonl", rows * 2)
    out = tmp_path / "out"
    command = [
        "evaluate",
        "benchmark",
        "--model",
        str(model.parent),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(out),
    ]
    assert main(command) == 0
    tasks = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))["models"][0]["tasks"]
    assert list(tasks) == list(KOBEST)
    assert all(found["num"] == 4 and found["commonest_label"] == 0.5 for found in tasks.values())
    assert all(found["accuracy"]["mean"] == found["accuracy_by_lm_eval"] for found in tasks.values())
    assert "hellaswag" in (out / "benchmark.html").read_text(encoding="utf-8")


def sample(label: int, *logprobs: float, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"doc": {"label": label, "choices": choices}, "filtered_resps": [(each, False) for each in logprobs]}


def test_results_by_hand() -> None:
    """Chosen 0, 0, 0, 1 for labels 0, 0, 0, 0: accuracy 3/4; F1 of 0 is 6/7, of 1 is 0, their mean 3/7."""
    found = task_result([sample(0, -1, -2)] * 3 + [sample(0, -2, -1)], 2)
    assert (found["accuracy"]["mean"], found["commonest_label"]) == (0.75, 1.0)
    assert found["macro_f1"] == pytest.approx(3 / 7)
    by_length = task_result([sample(1, -1.0, -1.5, -9, -9, choices=("가", "가나다", "가", "가"))], 4)
    assert (by_length["accuracy"]["mean"], by_length["accuracy_by_length"]["mean"]) == (0, 1)


def test_where_files_are_looked_for(tmp_path: Path) -> None:
    flat, deep = write(tmp_path / "copa.jsonl", []), write(tmp_path / "wic" / "test-00000-of-00001.parquet", [])
    train = write(tmp_path / "wic" / "train.jsonl", [])
    assert find_files(str(tmp_path), "test") == {"copa": flat, "wic": deep}
    assert find_files(str(tmp_path), "train") == {"wic": train}


def test_parquet_is_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS["sentineg"]), tmp_path / "sentineg.parquet")
    assert write_rows(KOBEST["sentineg"], tmp_path / "sentineg.parquet", tmp_path / "rows.jsonl") == 2
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DataError, match="not a parquet file"):
        write_rows(KOBEST["sentineg"], tmp_path / "bad.parquet", tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("sentineg", {"sentence": None}, "no key sentence"),
        ("sentineg", {"label": 2}, "label 2"),
        ("hellaswag", {"label": 4}, "label 4"),
        ("copa", {"question": "이유"}, "원인 or 결과"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, task: str, change: dict[str, Any], said: str) -> None:
    file = write(tmp_path / f"{task}.jsonl", [ROWS[task][0], ROWS[task][1] | change])
    with pytest.raises(DataError, match=said) as error:
        write_rows(KOBEST[task], file, tmp_path / "rows.jsonl")
    assert f"{file}:2" in str(error.value)


def test_what_is_missing_is_said_before_a_model_is_loaded(
    tmp_path: Path, tiny_neox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "evaluate",
        "benchmark",
        "--model",
        str(tiny_neox),
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 1
    assert "holds no task of KoBEST" in capsys.readouterr().err
    write(tmp_path / "boolq.jsonl", ROWS["boolq"])
    assert main([*command, "--num-fewshot", "2"]) == 1
    assert "no train split of boolq" in capsys.readouterr().err
