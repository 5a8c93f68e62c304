"""A run's folder: who may use it, what it holds, and what a resumed run takes out of its logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.errors import ArtifactError, RunLockedError

HOLDER = """
import sys
from rlhf.artifacts.run_folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen]:
    """A real second process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_told_by_whom(tmp_path):
    with another_process(tmp_path) as holder:
        with (
            pytest.raises(RunLockedError, match=f"in use by process {holder.pid} on ") as caught,
            RunFolder(tmp_path).locked(),
        ):
            pass
        assert caught.value.where == "run.dir"
    with RunFolder(tmp_path).locked():  # its end, even by a kill, frees the folder
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()


def test_the_holders_name_survives_a_refused_attempt(tmp_path):
    with another_process(tmp_path) as holder:
        for _ in range(2):
            with pytest.raises(RunLockedError, match=f"process {holder.pid} "), RunFolder(tmp_path).locked():
                pass


def test_the_lock_ends_with_the_block_even_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).locked():
        raise ZeroDivisionError
    with another_process(tmp_path):
        pass


# prepare


def test_prepare_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "sft")
    folder.prepare(resume=False)
    assert folder.path.is_dir()
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("made", ["model", "checkpoints/step-000100"])
def test_prepare_refuses_a_folder_that_holds_a_run(tmp_path, made):
    folder = RunFolder(tmp_path)
    (tmp_path / made).mkdir(parents=True)
    folder.metrics.write_text('{"step": 1}\n')
    folder.set_state("preempted", stage="sft", step=100)
    with pytest.raises(ArtifactError, match=r"already holds a run \(preempted\)") as caught:
        folder.prepare(resume=False)
    assert "--resume auto" in caught.value.fix
    assert folder.metrics.read_text() == '{"step": 1}\n'
    folder.prepare(resume=True)
    assert folder.metrics.read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("resume", [False, True])
def test_prepare_clears_the_logs_of_a_run_that_never_saved(tmp_path, resume):
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints" / ".writing-step-000100").mkdir(parents=True)
    folder.metrics.write_text('{"step": 1}\n')
    folder.samples.write_text('{"step": 1}\n')
    folder.prepare(resume=resume)
    assert not folder.metrics.exists()
    assert not folder.samples.exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    for path in (tmp_path / "runs", tmp_path / "runs" / "sft"):
        with pytest.raises(ArtifactError, match=f"cannot write into {path}: ") as caught:
            RunFolder(path).prepare(resume=False)
        assert (caught.value.where, caught.value.fix) == ("run.dir", "choose another run.dir")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)  # these tests may run as root, whom no mode stops
    with pytest.raises(ArtifactError, match=r"cannot write into .*: Permission denied"):
        RunFolder(tmp_path).prepare(resume=False)


# state


def test_state_is_written_whole_and_read_back(tmp_path):
    folder = RunFolder(tmp_path)
    assert (folder.state(), folder.status()) == ({}, "")
    folder.set_state("running", stage="ppo", step=0)
    folder.set_state("failed", stage="ppo", step=12, reason="손실이 발산했다")
    assert folder.status() == "failed"
    on_disk = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    assert on_disk == {"status": "failed", "stage": "ppo", "step": 12, "reason": "손실이 발산했다"} == folder.state()
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_paths(tmp_path):
    folder = RunFolder(tmp_path)
    names = ("checkpoints", "model", "adapter", "metrics.jsonl", "samples.jsonl")
    paths = (folder.checkpoints, folder.model, folder.adapter, folder.metrics, folder.samples)
    assert paths == tuple(tmp_path / name for name in names)


# cut_logs_after


def lines(*steps: int, **more: object) -> str:
    return "".join(json.dumps({"step": step, **more}, ensure_ascii=False) + "\n" for step in steps)


def test_logs_are_cut_after_the_step(tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.write_text(lines(1, 2, 3, 4), encoding="utf-8")
    folder.samples.write_text(lines(2, 2, 4, answer="네, 뷁"), encoding="utf-8")
    folder.cut_logs_after(2)
    assert folder.metrics.read_text(encoding="utf-8") == lines(1, 2)
    assert folder.samples.read_text(encoding="utf-8") == lines(2, 2, answer="네, 뷁")


def test_missing_logs_are_no_error(tmp_path):
    RunFolder(tmp_path).cut_logs_after(3)
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_last_line_is_dropped_wherever_it_was_cut(tmp_path):
    folder = RunFolder(tmp_path)
    last = lines(2, answer="네, 뷁 ☔ 좋아요").encode()
    for kept in range(len(last) - 1):  # also in the middle of a character
        folder.samples.write_bytes(lines(1).encode() + last[:kept])
        folder.cut_logs_after(5)
        assert folder.samples.read_text(encoding="utf-8") == lines(1)
    folder.samples.write_bytes(lines(1).encode() + last[:-1])  # only its newline is missing: the line is whole
    folder.cut_logs_after(5)
    assert folder.samples.read_bytes() == lines(1).encode() + last


def test_unusual_line_breaks_inside_an_answer_do_not_split_its_line(tmp_path):
    folder = RunFolder(tmp_path)
    text = lines(1, answer="한 줄\u2028두 줄\u0085세 줄")
    folder.samples.write_text(text + lines(9), encoding="utf-8")
    folder.cut_logs_after(5)
    assert folder.samples.read_text(encoding="utf-8") == text
