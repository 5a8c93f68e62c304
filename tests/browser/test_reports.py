"""Report pages in a browser: its language first, one switch, and nothing cut or broken on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.data.embedded import data_path
from rlhf.data.records import Message, Prompt
from rlhf.evaluate.answers.command import generation_report
from rlhf.evaluate.answers.generation import AnswerSet, Generations
from rlhf.evaluate.compare.command import page_values, views
from rlhf.html.templates import render

PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def stats_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("stats") / "stats.html"
    assert main(["data", "stats", str(data_path("demo:handwritten_dev")), "--html", str(page)]) == 0
    return page


@pytest.fixture(scope="module")
def compare_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = [Prompt((Message("user", f"{what} 이야기를 자세히 들려줄래?"),), "일상") for what in ("비", "눈", "밥")]
    said = {
        "sft": "그랬구나 힘들었겠다 오늘은 푹 쉬자. " * 6,
        "ppo": "많이 힘드셨겠어요. 오늘은 일찍 쉬어 보세요. " * 6,
    }
    sets = [AnswerSet(name, f"runs/{name}", "0", [[text]] * 3, [[True]] * 3) for name, text in said.items()]
    generations = Generations(prompts, sets, {"seed": 17}, 0)
    report = generation_report(generations, [None, None])
    report |= views([], generations, report)
    page = tmp_path_factory.mktemp("compare") / "compare.html"
    page.write_text(
        render("evaluate/compare/page.html.j2", report=report, **page_values(generations, [], 3)), encoding="utf-8"
    )
    return page


def opened(browser, page: Path, locale: str, viewport: dict[str, int]):
    made = browser.new_context(locale=locale, viewport=viewport).new_page()
    made.goto(page.as_uri())
    return made


@pytest.mark.parametrize(
    ("locale", "shown", "hidden"), [("ko-KR", "ko", "en"), ("en-US", "en", "ko"), ("de-DE", "en", "ko")]
)
def test_the_language_of_the_browser_comes_first(browser, stats_page, locale, shown, hidden):
    page = opened(browser, stats_page, locale, DESKTOP)
    assert page.evaluate("document.documentElement.lang") == shown
    assert page.locator(f"h1 [lang={shown}]").is_visible()
    assert not page.locator(f"h1 [lang={hidden}]").is_visible()
    page.locator(f"label[for={'in-english' if shown == 'ko' else 'in-korean'}]").click()
    assert page.evaluate("document.documentElement.lang") == hidden
    assert page.locator(f"h1 [lang={hidden}]").is_visible()
    assert page.locator("svg:visible").count() == page.locator(f"span[lang={hidden}] svg").count() > 0


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", ["stats_page", "compare_page"])
def test_no_page_is_wider_than_its_screen(browser, name, viewport, request):
    page = opened(browser, request.getfixturevalue(name), "ko-KR", viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
def test_tables_of_figures_fit_a_phone(browser, stats_page, locale):
    page = opened(browser, stats_page, locale, {"width": 320, "height": 640})
    wide = "[...document.querySelectorAll('.wide')].filter((each) => each.scrollWidth > each.clientWidth).length"
    assert page.evaluate(wide) == 0


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
def test_korean_breaks_between_words(browser, compare_page, locale):
    """Each word of an answer lies on one line, and so does each word of a heading."""
    page = opened(browser, compare_page, locale, PHONE)
    broken = """() => [...document.querySelectorAll('.said div, th')].flatMap((node) => {
      const found = [], walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) for (const word of walker.currentNode.data.matchAll(/\\S+/g)) {
        const range = document.createRange();
        range.setStart(walker.currentNode, word.index);
        range.setEnd(walker.currentNode, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map((each) => each.top)).size > 1) found.push(word[0]);
      }
      return found;
    })"""
    assert page.evaluate(broken) == []
