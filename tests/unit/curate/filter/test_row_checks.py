"""Rules of a row in several processes: the same verdicts in the same order, and the same errors."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import parent_process
from pathlib import Path

import psutil
import pytest

from rlhf.curate.filter import row_checks
from rlhf.curate.filter.command import FilterOptions, filter_rows, rules_of
from rlhf.curate.filter.row_checks import RowRules, verdicts
from rlhf.data.readers import locate, read_rows
from rlhf.errors import DataError

TALK = ("오늘 저녁은 김치찌개야", "우산 챙겼어?", "너 진짜 멍청이냐", "버스가 늦게 왔어", "전화는 010-2222-3333이야")


def plain(numbered):
    return numbered


def ended(numbered):
    """As the kernel ends a process when memory runs out; the parent, which reads ten rows itself, stays."""
    if parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return numbered


def slow(numbered):
    time.sleep(0.01)
    return numbered


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """3,000 rows; some are rude, some short, some personal, one in 500 is cut short."""
    draw = random.Random(3)
    lines = [
        json.dumps({"instruction": f"{draw.choice(TALK)} {n % 7}", "output": draw.choice(TALK)}, ensure_ascii=False)
        for n in range(3000)
    ]
    lines[250::500] = [line[:-3] for line in lines[250::500]]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def options(file: Path, out: str, **more) -> FilterOptions:
    return FilterOptions(
        str(file), file.parent / out, rude="any", personal="drop", min_chars=10, dedup=("minhash", 0.9), **more
    )


def test_several_processes_give_the_verdicts_of_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_checks, "ALONE", 700)
    what = RowRules(partial(rules_of, options(file, "o")), plain, str(file), "skip")
    one, three = (list(verdicts(read_rows(locate(str(file))), what, processes)) for processes in (1, 3))
    assert one == three
    assert len(one) == 3000
    assert {verdict.reason for verdict in one} == {
        "", "rude word (any)", "personal information", "fewer than 10 characters", "bad row"
    }  # fmt: skip


def test_a_bad_row_is_named_before_a_later_end_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_checks, "ALONE", 100)

    def rows():
        yield from read_rows(locate(str(file)))
        raise DataError("the file ends early")

    what = RowRules(partial(rules_of, options(file, "o")), plain, str(file), "error")
    for processes in (1, 2):
        with pytest.raises(DataError, match="invalid JSON"):
            list(verdicts(rows(), what, processes))
    kept, seen = RowRules(what.rules, plain, str(file), "skip"), []
    with pytest.raises(DataError, match="ends early"):
        seen.extend(verdicts(rows(), kept, 2))
    assert len(seen) == 3000


def test_an_ended_process_is_an_error_of_this_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_checks, "ALONE", 10)
    what = RowRules(dict, ended, str(file), "skip")
    with pytest.raises(DataError, match="ended from outside"):
        list(verdicts(read_rows(locate(str(file))), what, 2))


def test_processes_end_with_a_killed_parent(file: Path) -> None:
    """SIGKILL closes nothing in the parent; its processes end by themselves."""
    code = (
        "import sys, time; from functools import partial; from pathlib import Path\n"
        "from rlhf.curate.filter import row_checks\n"
        "from tests.unit.curate.filter import test_row_checks as here\n"
        "if __name__ == '__main__':\n"
        "    row_checks.ALONE = 1\n"
        "    what = row_checks.RowRules(dict, here.slow, sys.argv[1], 'skip')\n"
        "    rows = here.read_rows(here.locate(sys.argv[1]))\n"
        "    for verdict in row_checks.verdicts(rows, what, 2): print(verdict.prompt, flush=True)\n"
    )
    script = file.parent / "killed.py"
    script.write_text(code)
    root = Path(__file__).parents[4]
    environment = os.environ | {"PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, str(script), str(file)], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    parent.stdout.readline()
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children
    time.sleep(2)  # until they are at work
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_the_written_file_and_its_report_do_not_depend_on_processes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filter_rows(options(file, "one.jsonl", clean=True, on_bad_row="skip"))
    monkeypatch.setattr(row_checks, "ALONE", 10)
    parted = filter_rows(options(file, "two.jsonl", clean=True, on_bad_row="skip"))
    assert (file.parent / "one.jsonl").read_bytes() == (file.parent / "two.jsonl").read_bytes()
    assert (whole.dropped, whole.examples, whole.counts) == (parted.dropped, parted.examples, parted.counts)


def test_the_first_bad_row_is_named_from_another_process(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_checks, "ALONE", 100)
    with pytest.raises(DataError) as caught:
        filter_rows(options(file, "o.jsonl"))
    assert caught.value.where == f"{file}:251"
    assert caught.value.problem.startswith("invalid JSON")
    assert caught.value.fix
    assert not (file.parent / "o.jsonl").exists()
