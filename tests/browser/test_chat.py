"""People chat in a real browser with a real `rlhf serve`, and what they vote for is read by stage 2."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

pytest.importorskip("playwright")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from playwright.sync_api import Browser, Locator, Page, expect

from rlhf.data.records import Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.serve.keys import KeyStore
from tests.support.endless_model import save_endless_model
from tests.support.pages import watched_page
from tests.support.serving import service_process

SCRIPT = "<script>document.title = '뚫림'</script><img src=x onerror=\"document.title = '뚫림'\"> 무슨 뜻이에요?"
DEADLINE_S = 60


@dataclass
class Service:
    url: str
    key: str
    votes: Path

    def running(self) -> float:
        """Answers being written."""
        text = httpx.get(f"{self.url}metrics", headers={"authorization": f"Bearer {self.key}"}).text
        return float(re.search(r"^rlhf_answers_running (\S+)$", text, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Iterator[Service]:
    """Two models of 4,096 positions, the same one under two names, which never say EOS; a key is needed."""
    folder = tmp_path_factory.mktemp("chat")
    save_endless_model(folder / "model", tiny_tokenizer_dir)
    store = KeyStore(folder / "keys.sqlite")
    key = store.add("민수")
    store.close()
    words = ["--template", "kullm", "--max-batch", "2"]
    words += ["--model", f"gap={folder / 'model'}", "--model", f"eul={folder / 'model'}"]
    words += ["--keys", str(folder / "keys.sqlite"), "--votes", str(folder / "votes.jsonl")]
    with service_process(*words) as (_, said):
        yield Service(re.search(r"chat page: (\S+)", said)[1], key, folder / "votes.jsonl")


def opened(browser: Browser, service: Service, **context) -> Page:
    """The page, behind its key."""
    page = watched_page(browser, service.url, deadline_s=DEADLINE_S, **context)
    expect(page.locator("#door h2")).to_have_text("API 키를 입력해 주세요")
    page.locator("#key").fill(service.key)
    page.locator("#door-form button").click()
    expect(page.locator("#door")).to_be_hidden()
    return page


def slide(page: Page, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def longer_than(text: Locator, characters: int) -> None:
    expect(text).to_have_text(re.compile(f".{{{characters + 1},}}", re.DOTALL), timeout=DEADLINE_S * 1000)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_stream_stop_and_are_written_again(browser: Browser, service: Service) -> None:
    page = opened(browser, service)
    text = page.locator(".side .text")
    slide(page, "max_tokens", 3008)
    page.locator("#system").fill("비밀스러운 지시예요.")
    page.locator("#box").fill(SCRIPT)
    page.keyboard.press("Enter")

    # The answer grows while it is written; stopping frees its place in the batch, and keeps the text.
    longer_than(text, 20)
    longer_than(text, len(text.text_content()) + 20)
    page.locator("#stop").click()
    expect(page.locator(".side .note")).to_have_text("중지한 답변이에요")
    deadline = time.monotonic() + DEADLINE_S
    while service.running():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped = text.text_content()
    expect(page.locator(".tools .up")).to_have_count(0)  # half an answer is not rated

    # Markup is text.
    assert page.locator(".asked").text_content() == SCRIPT
    assert page.locator("#talk script, #talk img").count() == 0
    assert page.title() == "대화"

    # Written again, it takes the old answer's place; a seed makes it repeatable, and the next attempt another one.
    slide(page, "max_tokens", 16)
    page.locator("#seed").fill("7")
    page.get_by_role("button", name="다시 생성").click()
    expect(page.locator(".side .note")).to_have_text("최대 토큰에 도달해 여기서 끊겼어요")
    expect(page.locator(".turn")).to_have_count(1)
    again = text.text_content()
    assert again != stopped
    page.locator(".tools .down").click()
    expect(page.locator(".tools .down.on")).to_be_disabled()
    (rating,) = rows(service.votes.with_suffix(".ratings.jsonl"))
    assert (rating["rating"], rating["model"], rating["settings"]["seed"]) == ("down", "gap", 9)
    assert [turn["content"] for turn in rating["messages"]] == ["비밀스러운 지시예요.", SCRIPT, again]

    # What was said is gone after a reload; the key is in this tab alone.
    assert page.evaluate("JSON.stringify(localStorage)").find(service.key) == -1
    page.reload()
    expect(page.locator("#empty h2")).to_have_text("무엇을 도와드릴까요?")
    assert page.locator("#system").input_value() == ""
    assert page.locator(".turn").count() == 0
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert "비밀" not in stored
    assert stored.count(service.key) == 1
    other_tab = page.context.new_page()
    other_tab.goto(service.url)
    expect(other_tab.locator("#door")).to_be_visible()
    assert [problem for problem in page.problems if "401" not in problem] == []


def test_a_blind_vote_on_a_phone_is_a_ranking_and_the_talk_goes_on(browser: Browser, service: Service) -> None:
    page = opened(browser, service, viewport={"width": 390, "height": 844})
    expect(page.get_by_role("button", name="보내기")).to_be_visible()  # its text is hidden here, its name is not
    page.locator("#options").click()
    slide(page, "max_tokens", 32)
    page.locator("#blind").check()
    page.locator("#close").click()
    page.locator("#compare").click()
    page.locator("#box").fill("오늘 뭐 먹을까요?")
    page.keyboard.press("Enter")
    expect(page.locator(".vote p")).to_have_text("어느 답변이 더 좋은가요?")
    expect(page.locator(".side .model")).to_have_count(0)  # blind
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(side.bounding_box()["width"] > 340 for side in page.locator(".side").all())
    assert page.locator("#box").bounding_box()["y"] > 700
    answers = page.locator(".side .text").all_text_contents()
    page.get_by_role("button", name="아래쪽").click()
    expect(page.locator(".side .model")).to_have_count(2)
    names = page.locator(".side .model").all_text_contents()
    assert sorted(names) == ["eul", "gap"]
    (row,) = rows(service.votes)
    assert row["responses"] == answers
    assert (row["ranks"], row["models"], row["blind"], row["source"]) == ([2, 1], names, True, "chat-votes")
    (ranking,) = read_records(DataSource(str(service.votes)), Ranking).records
    assert ranking.responses[ranking.best] == answers[1].strip()

    # The conversation goes on from the better answer.
    page.locator("#language").click()
    page.locator("#box").fill("고마워요.")
    page.keyboard.press("Enter")
    expect(page.locator(".vote p").last).to_have_text("Which answer is better?")
    page.get_by_role("button", name="Both bad").click()
    expect(page.locator(".vote p").last).to_have_text("You voted “Both bad”. Thank you!")
    last = rows(service.votes)[-1]
    assert [turn["content"] for turn in last["prompt"]] == ["오늘 뭐 먹을까요?", answers[1], "고마워요."]
    assert (last["ranks"], last["all_bad"]) == ([1, 1], True)
    assert [problem for problem in page.problems if "401" not in problem] == []
