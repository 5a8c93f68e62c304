"""People label in a real browser, on the real command, which is killed and started again underneath them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("krippendorff")

from playwright.sync_api import Browser, Page, expect

from rlhf.data.records import Ranking
from rlhf.data.sources import DataSource, read_records
from tests.support.pages import watched_page

SCRIPT = "<script>document.title = '뚫림'</script><b>굵게</b> 이 글은 무슨 뜻이에요?"
IMAGE = "<img src=x onerror=\"document.title = '뚫림'\"> 그림처럼 보이는 글이에요."
ROWS = [
    {"prompt": f"{number}번 질문이에요.", "responses": [f"{number}번 질문의 답변 {n}" for n in "가나다"]}
    for number in range(1, 6)
]
ROWS.append({"prompt": SCRIPT, "responses": [IMAGE, "굵은 글씨예요.", "잘 모르겠어요."], "models": ["갑", "을", "병"]})
DEADLINE_S = 30


class Command:
    """`rlhf data label` as people start it."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags, self.port = folder, flags, free_port()
        self.out = folder / "labels.jsonl"
        rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
        (folder / "in.jsonl").write_text(rows, encoding="utf-8")
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it says that it listens; then every connection is answered."""
        command = [sys.executable, "-m", "rlhf", "data", "label", "--in", "in.jsonl", "--out", str(self.out)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.flags],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        assert self.process.stderr is not None
        self.greeting = ""
        while "Ctrl-C" not in self.greeting:
            line = self.process.stderr.readline()
            assert line, self.greeting
            self.greeting += line
        deadline = time.monotonic() + DEADLINE_S
        while not answers(self.port):
            assert time.monotonic() < deadline

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Stops it as a person or a system does; what it said at the end."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 0, said
        return said

    def link(self, name: str) -> str:
        """The link printed for someone."""
        found = re.search(rf"^  {re.escape(name)}.*\t(\S+)$", self.greeting, flags=re.MULTILINE)
        assert found, self.greeting
        return found[1]

    def rows(self) -> list[dict]:
        """What was exported."""
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    running = Command(tmp_path, "--annotators", "지수,민호", "--overlap", "1")
    yield running
    if running.process.poll() is None:
        running.kill()


def opened(browser: Browser, link: str, **context) -> Page:
    return watched_page(browser, link, deadline_s=DEADLINE_S, **context)


def prompt_of(page: Page) -> str:
    return page.locator(".prompt .turn").last.inner_text()


def next_row(page: Page, key: str) -> str:
    """Presses a key that hands the row in, and waits for the next; the prompt that was handed in."""
    page.locator("body[data-settled]").wait_for()
    before, done = prompt_of(page), int(page.locator("#count b").inner_text())
    page.keyboard.press(key)
    expect(page.locator("#count b")).to_have_text(str(done + 1))
    return before


def answer(page: Page, place: int) -> str:
    return page.locator(".answer .text").nth(place - 1).inner_text()


def ranks_shown(page: Page) -> list[str]:
    return page.locator(".answer .rank").all_inner_texts()


def test_saved_means_the_newest_state_on_a_slow_line(browser: Browser, command: Command) -> None:
    page = opened(browser, command.link("지수"))
    expect(page.locator(".answer")).to_have_count(3)
    slow = {"offline": False, "latency": 300, "downloadThroughput": -1, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    for key in ("2", "1", "u", "Equal", "3"):
        page.keyboard.press(key)
    expect(page.locator("#saved")).to_have_text("저장됨")
    page.reload()
    expect(page.locator(".answer.placed")).to_have_count(3)
    assert ranks_shown(page) == ["3위", "공동 1위", "공동 1위"]


def test_labels_outlive_the_process_and_train(browser: Browser, command: Command) -> None:
    page = opened(browser, command.link("지수"))
    expect(page.locator(".answer")).to_have_count(3)

    # Keys place answers from the best; the last falls into place, undo takes both back.
    page.keyboard.press("2")
    page.keyboard.press("1")
    assert ranks_shown(page) == ["2위", "1위", "3위"]
    page.keyboard.press("u")
    assert ranks_shown(page) == ["", "1위", ""]
    page.keyboard.press("Equal")
    page.keyboard.press("3")
    assert ranks_shown(page) == ["3위", "공동 1위", "공동 1위"]
    expected = {prompt_of(page): ({answer(page, 2): 1, answer(page, 3): 1, answer(page, 1): 3}, None)}

    expect(page.locator("#saved")).to_have_text("저장됨")
    page.reload()
    expect(page.locator(".answer.placed")).to_have_count(3)
    first = next_row(page, "Enter")

    # A kill -9 of the server between two clicks: what was saved is there, what is typed meanwhile is sent later.
    place = 2
    page.keyboard.press(str(place))
    expect(page.locator("#saved")).to_have_text("저장됨")
    command.kill()
    page.keyboard.press("c")
    page.keyboard.type("둘 다 친절해요")
    expect(page.locator("#saved")).to_have_text("연결이 끊겨 다시 저장하고 있어요")
    command.start()
    expect(page.locator("#saved")).to_have_text("저장됨")
    page.reload()
    expect(page.locator("#count b")).to_have_text("1")
    expect(page.locator("#comment")).to_have_value("둘 다 친절해요")
    assert ranks_shown(page) == ["", "1위", ""]

    # An edit, a tie, bad answers and a skipped row; U after a verdict opens the row again.
    page.keyboard.press("3")
    page.keyboard.press("e")
    page.locator(".edit textarea:visible").fill("제가 고쳐 쓴 답변이에요.")
    page.keyboard.press("Escape")
    order = {answer(page, 2): 2, answer(page, 3): 3, answer(page, 1): 4}
    edited_from = answer(page, place)
    edited = next_row(page, "Enter")
    expected[edited] = (order, edited_from)
    tied = next_row(page, "t")
    page.keyboard.press("u")
    expect(page.locator("#count b")).to_have_text("2")
    assert prompt_of(page) == tied
    assert next_row(page, "t") == tied
    bad = next_row(page, "b")
    skipped = next_row(page, "s")
    said = command.stop()
    assert "4 rows; dropped 1 skipped, 1 not labelled yet" in said

    rows = {row["prompt"]: row for row in command.rows()}
    assert set(rows) == {first, edited, tied, bad}
    assert skipped not in rows
    for prompt, (ranks, edit_of) in expected.items():
        row = rows[prompt]
        found = dict(zip(row["responses"], row["ranks"], strict=True))
        assert found == ranks | ({"제가 고쳐 쓴 답변이에요.": 1} if edit_of else {})
        if edit_of:
            assert row["responses"][row["edited_from"][0]] == edit_of
    assert rows[edited]["comments"] == ["둘 다 친절해요"]
    assert rows[bad]["all_bad"] is True
    assert set(rows[tied]["ranks"]) == {1}
    loaded = read_records(DataSource(str(command.out)), Ranking)
    assert len(loaded.records) == 2
    assert loaded.report.num_tied == 2
    # While the server was down, requests failed; nothing else did.
    assert [problem for problem in page.problems if "ERR_CONNECTION_REFUSED" not in problem] == []


def test_markup_is_text_and_models_are_hidden(browser: Browser, command: Command) -> None:
    page = opened(browser, command.link("민호"))
    while prompt_of(page) != SCRIPT:
        next_row(page, "s")
    texts = {answer(page, place) for place in (1, 2, 3)}
    assert texts == {IMAGE, "굵은 글씨예요.", "잘 모르겠어요."}
    assert page.title() == "답변 순위 매기기"
    assert page.locator("main img, main b.bold, main script").count() == 0
    assert not {"갑", "을", "병"} & set(re.findall(r"\w+", page.locator("body").inner_text()))
    page.locator(".answer").nth(2).click()
    assert ranks_shown(page) == ["", "", "1위"]
    page.locator("#language").click()
    assert ranks_shown(page) == ["", "", "#1"]
    assert page.locator("html").get_attribute("lang") == "en"
    page.locator(".answer").nth(2).click()  # a second click takes it out again
    assert ranks_shown(page) == ["", "", ""]
    page.locator(".pick").nth(1).dblclick()  # in haste: once
    assert ranks_shown(page) == ["", "#1", ""]
    assert page.problems == []
    wrong = opened(browser, command.link("민호")[:-3] + "xyz")
    expect(wrong.locator("main h2")).to_have_text("유효하지 않은 링크예요")


def test_a_person_types_a_name_on_a_phone_and_finishes(browser: Browser, tmp_path: Path) -> None:
    command = Command(tmp_path)
    try:
        page = opened(browser, command.link("label"), viewport={"width": 390, "height": 844}, has_touch=True)
        page.locator("#name").fill("하나")
        page.locator("form button").tap()
        for done in range(len(ROWS)):
            expect(page.locator("#count b")).to_have_text(str(done))
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            for place in (1, 0):
                page.locator(".pick").nth(place).tap()
            page.locator("body[data-settled]").wait_for()
            page.locator("#next").tap()
        expect(page.locator("main h2")).to_have_text("모두 끝났어요!")
        page.locator("#write").tap()
        expect(page.locator("#toast")).to_have_text("labels.jsonl에 6줄을 저장했어요")
        page.goto(command.link("agreement"))
        expect(page.locator(".panel")).to_have_count(4)
        assert "을" in page.locator(".panel").last.inner_text()  # the owner sees models
        assert page.problems == []
        command.stop(signal.SIGINT)
        assert len(command.rows()) == 6
    finally:
        if command.process.poll() is None:
            command.kill()
