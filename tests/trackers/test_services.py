"""Runs that log to W&B, Trackio and MLflow, with the real packages and without a network (make test-trackers)."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.schema import SftConfig
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.trackers import open_trackers

pytestmark = pytest.mark.trackers

# What one start of a run logs; arguments: folder, services, first step, last step, whether it ends in an error.
START = """
import sys
from functools import partial
from pathlib import Path
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.schema import SftConfig
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.trackers import open_trackers

folder, services, first, last, fails = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
config = load_config(SftConfig, None, [f"log.to=[{services}]", "log.project=말투", "train.lr=3e-4"])
values = {"stage": "sft", **config.model_dump(mode="json")}
opened = partial(open_trackers, folder, config.log, values, start=first - 1)
log = MetricsLog(RunFolder(folder), total=last, start=first - 1, active=True, shown=("loss",), open_trackers=opened)
log.open()
with log:
    for step in range(first, last + 1):
        log.log(step, {"loss": 4.0 / step})
    answers = [{"prompt": "비 와?", "answer": "네, 우산요."}, {"prompt": "밥?", "answer": "아직요.", "eos": True}]
    log.samples(last, answers)
    log.event(last, "길이가 늘었습니다 <length>")
    log.report("report_card", {"accuracy": 0.75, "num_pairs": 8, "length": {"correlation": 0.5}, "note": "x"})
    if fails == "fails":
        raise RuntimeError("a run that ends in an error")
"""


def start(folder: Path, services: str, first: int, last: int, *, fails: bool = False) -> str:
    """One start of a run in a process of its own, whose services keep everything under the folder's parent."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "MLFLOW", "TRACKIO"))
    }
    environment |= {"HOME": str(home), "WANDB_MODE": "offline", "TRACKIO_DIR": str(home / "trackio")}
    words = [str(folder), services, str(first), str(last), "fails" if fails else ""]
    done = subprocess.run(
        [sys.executable, "-c", START, *words], env=environment, capture_output=True, text=True, check=False, cwd=home
    )
    assert done.returncode == int(fails), done.stderr[-3000:]
    assert "failed and gets nothing more" not in done.stderr
    return done.stderr


def sqlite(path: Path, query: str) -> list[tuple]:
    with sqlite3.connect(path) as database:
        return database.execute(query).fetchall()


def wandb_records(folder: Path) -> list:
    """All records of the offline runs in a folder, oldest first."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime):
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
    return found


def leveldb_records(content: bytes, header: int = 7, block: int = 1 << 15) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, which W&B writes after a header of 7 bytes.

    Source: github.com/google/leveldb/blob/main/doc/log_format.md
    """
    place, parts = header, []
    while place + 7 <= len(content):
        if block - place % block < 7:  # the rest of a block that holds no further header
            place += block - place % block
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        parts.append(content[place + 7 : place + 7 + size])
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def history(records: list) -> list[dict]:
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
    return rows


def test_wandb_offline(tmp_path: Path) -> None:
    start(tmp_path / "sft-말투", "wandb", 1, 3, fails=True)
    start(tmp_path / "sft-말투", "wandb", 3, 4)
    records = wandb_records(tmp_path / "sft-말투")
    runs = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert {(run.project, run.display_name) for run in runs} == {("말투", "sft-말투")}
    assert len({run.run_id for run in runs}) == 1  # a resumed run is the same
    rows = history(records)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert losses == [(1, 4.0), (2, 2.0), (3, 4 / 3), (3, 4 / 3), (4, 1.0)]
    assert sum("samples" in key for row in rows for key in row) > 0
    exits = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert exits == [1, 0]
    tables = list((tmp_path / "sft-말투" / "wandb").glob("offline-run-*/files/media/table/*.json"))
    assert len(tables) == 2
    assert all(json.loads(table.read_text())["data"][0] == ["비 와?", "네, 우산요.", ""] for table in tables)
    names = {item.key or "/".join(item.nested_key) for record in records for item in record.summary.update}
    assert {"report_card/accuracy", "report_card/length.correlation"} <= names


def test_trackio_continues_a_run_by_its_name(tmp_path: Path) -> None:
    start(tmp_path / "sft", "trackio", 1, 3)
    start(tmp_path / "sft", "trackio", 4, 5)
    (file,) = (tmp_path / "home" / "trackio").glob("*.db")
    rows = [
        (name, step, json.loads(text))
        for name, step, text in sqlite(file, "select run_name, step, metrics from metrics")
    ]
    assert {name for name, _, _ in rows} == {"sft"}
    assert [(step, row["loss"]) for _, step, row in rows if "loss" in row] == [
        (step, 4.0 / step) for step in range(1, 6)
    ]
    assert [row["report_card/accuracy"] for _, _, row in rows if "report_card/accuracy" in row] == [0.75, 0.75]
    assert any("네, 우산요." in json.dumps(row, ensure_ascii=False) for _, _, row in rows)


def test_mlflow_in_the_run_folder(tmp_path: Path) -> None:
    start(tmp_path / "sft", "mlflow", 1, 3, fails=True)
    file = tmp_path / "sft" / "mlflow.db"
    assert [status for (status,) in sqlite(file, "select status from runs")] == ["FAILED"]
    start(tmp_path / "sft", "mlflow", 4, 5)
    assert sqlite(file, "select name, status from runs") == [("sft", "FINISHED")]
    assert ("말투",) in sqlite(file, "select name from experiments")
    losses = sqlite(file, "select step, value from metrics where key = 'loss' order by step")
    assert losses == [(step, pytest.approx(4.0 / step)) for step in range(1, 6)]
    figures = dict(sqlite(file, "select key, value from latest_metrics where key like 'report_card%'"))
    assert figures == {
        "report_card/accuracy": 0.75,
        "report_card/num_pairs": 8.0,
        "report_card/length.correlation": 0.5,
    }
    parameters = dict(sqlite(file, "select key, value from params"))
    assert (parameters["train.lr"], parameters["stage"]) == ("0.0003", "sft")
    texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "sft" / "mlflow").rglob("*.*")}
    assert "우산요" in texts["step-000003.json"] or "\\uc6b0" in texts["step-000003.json"]
    assert "<length>" in texts["step-000005.txt"]
    assert json.loads(texts["report_card.json"])["note"] == "x"


def test_the_project_and_the_name_are_taken_over(tmp_path: Path) -> None:
    """All at once, with TensorBoard: each has the run by its name, and the run folder knows each of them."""
    start(tmp_path / "run-7", "tensorboard, wandb, trackio, mlflow", 1, 1)
    known = json.loads((tmp_path / "run-7" / "trackers.json").read_text(encoding="utf-8"))
    assert set(known) == {"wandb", "trackio", "mlflow"}
    assert known["trackio"] == "run-7"
    assert sqlite(tmp_path / "run-7" / "mlflow.db", "select run_uuid from runs") == [(known["mlflow"],)]
    assert list((tmp_path / "run-7" / "tensorboard").glob("events.*"))


def test_a_service_that_fails_later_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    config = load_config(SftConfig, None, ["log.to=[mlflow]"])

    def opened() -> dict:
        return open_trackers(tmp_path / "run", config.log, {}, start=0)

    log = MetricsLog(RunFolder(tmp_path / "run"), total=2, start=0, active=True, shown=(), open_trackers=opened)
    log.open()
    with log:
        log.log(1, {"loss": 2.0})
        with sqlite3.connect(tmp_path / "run" / "mlflow.db") as database:
            database.execute("drop table metrics")
        log.log(2, {"loss": 1.0})
    assert "warning: mlflow failed and gets nothing more" in capsys.readouterr().err
    assert len(RunFolder(tmp_path / "run").metrics.read_text().splitlines()) == 2
