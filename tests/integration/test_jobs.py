"""docs/chat-with-your-own-style.md, step by step: a chat log, an upload, a job whose server is killed, an answer."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import openai
import pytest

from rlhf.cli import main
from tests.integration.conftest import read_lines
from tests.integration.starts import base_environment
from tests.support.launcher import REPOSITORY, TAIL_CHARACTERS, free_port

T = TypeVar("T")
SFT = """
data: {template: polyglot-chat, max_length: 128}
train: {lr: 5.0e-3, batch_size: 4, micro_tokens: 512, epochs: 4}
checkpoint: {every_steps: 100}
log: {samples_every_steps: null, to: []}
sampling: {max_new_tokens: 16, max_prompt_tokens: 64}
"""
ASKED = ("밥 먹었어?", "지금 뭐 해?", "주말에 시간 돼?", "영화 볼래?")
ANSWERED = ("아직ㅋㅋ 너는?", "누워서 음악 듣는 중", "토요일 좋지", "오 그거 보고 싶었어")


class Service:
    """`rlhf serve` in a process of its own, on one port however often it is started."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.port, self.log = folder, free_port(), folder / "server.txt"
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0)
        self._words = ["--port", str(self.port), "--keys", str(folder / "keys.sqlite")]
        self._words += ["--jobs-dir", str(folder / "jobs"), "--base", f"tiny={base}", "--max-batch", "2"]
        self._words += ["--job-config", str(folder / "sft.yaml"), "--job-launcher-args=--num_accelerators 1"]
        (folder / "sft.yaml").write_text(SFT, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "rlhf", "serve", *self._words]
            self._process = subprocess.Popen(command, cwd=REPOSITORY, env=base_environment(), stdout=log, stderr=log)
        self.wait(self.answers, "the server answers")

    def answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.tail()
        try:
            return httpx.get(self.url.replace("/v1", "/health")).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self, ask: Callable[[], T], what: str, seconds: float = 240) -> T:
        """What `ask` says as soon as that is not false."""
        deadline = time.monotonic() + seconds
        while not (found := ask()):
            assert time.monotonic() < deadline, f"never: {what}\n{self.tail()}"
            time.sleep(0.1)
        return found

    def tail(self) -> str:
        logs = [self.log, *self.folder.glob("jobs/jobs/*/log.txt")]
        return "\n".join(f"{log}\n{log.read_text(errors='replace')[-TAIL_CHARACTERS:]}" for log in logs if log.exists())

    def launcher_of(self, job: str) -> int:
        return int((self.folder / "jobs" / "jobs" / job / "pid").read_text())


@pytest.fixture
def service(tmp_path: Path, tiny_neox: Path) -> Iterator[Service]:
    started = Service(tmp_path, tiny_neox)
    started.start()
    yield started
    started.kill()
    for pid in tmp_path.glob("jobs/jobs/*/pid"):
        if is_group(int(pid.read_text())):
            os.killpg(int(pid.read_text()), signal.SIGKILL)


def is_group(pid: int) -> bool:
    """Whether a process of the group works."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            return True
    return False


def kakao_export(path: Path) -> None:
    """Eight talks of 수아 and 지호, an hour each time after the last, as the macOS app writes them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("Date", "User", "Message"))
        for number in range(8):
            day = f"2023-05-{number + 1:02d}"
            writer.writerow((f"{day} 12:00:00", "지호", ASKED[number % 4]))
            writer.writerow((f"{day} 12:00:20", "수아", ANSWERED[number % 4]))
            writer.writerow((f"{day} 12:00:25", "수아", "ㅋㅋ"))


def test_a_chat_log_becomes_a_model_that_answers(service: Service, tmp_path: Path) -> None:
    export, chat, client = tmp_path / "kakao.csv", tmp_path / "chat.jsonl", service.client
    kakao_export(export)
    assert main(["data", "import", "--in", str(export), "--out", str(chat), "--me", "수아"]) == 0
    assert len(read_lines(chat)) == 8
    assert read_lines(chat)[0]["messages"][-1] == {"role": "assistant", "content": "아직ㅋㅋ 너는?\nㅋㅋ"}

    # A bad file: its lines are named, and no job takes it.
    broken = chat.read_text(encoding="utf-8") + '{"messages": [\n{"prompt": "왜?"}\n'
    bad = client.files.create(file=("chat.jsonl", broken.encode()), purpose="fine-tune")
    assert bad.status == "error"
    assert re.search(r"^line 9: invalid JSON", str(bad.status_details), re.MULTILINE)
    with pytest.raises(openai.BadRequestError, match="line 9: invalid JSON"):
        client.fine_tuning.jobs.create(model="tiny", training_file=bad.id)

    # A good one, and two jobs: one in today's words, one in those of 2023.
    with chat.open("rb") as file:
        good = client.files.create(file=file, purpose="fine-tune")
    assert (good.status, good.bytes, good.filename) == ("processed", chat.stat().st_size, "chat.jsonl")
    supervised = {"hyperparameters": {"n_epochs": 3, "batch_size": 4}}
    method = {"type": "supervised", "supervised": supervised}
    job = client.fine_tuning.jobs.create(model="tiny", training_file=good.id, suffix="sua", method=method)
    legacy = httpx.post(f"{service.url}/fine-tunes", json={"training_file": good.id, "model": "tiny"}).json()
    assert (legacy["object"], legacy["status"]) == ("fine-tune", "pending")

    # The server is killed while the job runs; the next one finds job, events and the running process.
    def is_running() -> bool:
        return client.fine_tuning.jobs.retrieve(job.id).status == "running"

    service.wait(lambda: is_running() and (tmp_path / "jobs" / "jobs" / job.id / "pid").is_file(), "the job runs")
    launcher = service.launcher_of(job.id)
    service.kill()
    assert is_group(launcher)
    service.start()
    assert [each.id for each in client.files.list(purpose="fine-tune")] == [good.id, bad.id]
    assert {each.id for each in client.fine_tuning.jobs.list()} == {job.id, legacy["id"]}

    def ended() -> openai.types.fine_tuning.FineTuningJob | None:
        found = client.fine_tuning.jobs.retrieve(job.id)
        return found if found.status not in ("queued", "running") else None

    done = service.wait(ended, "the job ends")
    assert done.status == "succeeded", done.error
    assert service.launcher_of(job.id) == launcher  # one start: it was taken over, not begun again
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))[::-1]  # over several pages
    assert events[0].message == f"Created fine-tuning job: {job.id}"
    assert events[-1].message == "The job has successfully completed"
    # 8 talks in batches of 4, 3 epochs
    assert [event.data["step"] for event in events if event.type == "metrics"] == [1, 2, 3, 4, 5, 6]
    table = client.files.content(done.result_files[0]).text.splitlines()
    assert table[0] == "step,train_loss"
    assert len(table) == 7
    assert [point.step_number for point in client.fine_tuning.jobs.checkpoints.list(job.id)] == [6]

    # The model answers by its id, which is not the job's.
    name = done.fine_tuned_model
    assert name == f"ft:tiny:local:sua:{job.id[-8:]}"
    assert name in [model.id for model in client.models.list()]
    messages = [{"role": "user", "content": "밥 먹었어?"}]
    answer = client.chat.completions.create(model=name, messages=messages, max_tokens=8)
    assert answer.model == name
    assert 1 <= answer.usage.completion_tokens <= 8
    text = client.completions.create(model=name, prompt="밥 먹었어?")
    assert 1 <= text.usage.completion_tokens <= 16

    # The other job's turn has come; it is cancelled, and its process ends.
    def legacy_now() -> dict:
        return httpx.get(f"{service.url}/fine-tunes/{legacy['id']}").json()

    service.wait(lambda: legacy_now()["status"] == "running", "the second job runs")
    cancelled = httpx.post(f"{service.url}/fine-tunes/{legacy['id']}/cancel").json()
    assert (cancelled["status"], cancelled["fine_tuned_model"]) == ("cancelled", None)
    assert cancelled["hyperparams"] == {
        "batch_size": 4,
        "learning_rate_multiplier": 1.0,
        "n_epochs": 4,
        "prompt_loss_weight": 0.0,
    }
    assert [file["id"] for file in cancelled["training_files"]] == [good.id]
    pid = tmp_path / "jobs" / "jobs" / legacy["id"] / "stopped"
    service.wait(pid.is_file, "the second job is stopped")
    assert not is_group(service.launcher_of(legacy["id"]))
