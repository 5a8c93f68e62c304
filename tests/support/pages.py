"""A page in the tests' browser that keeps what goes wrong in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def watched_page(browser: Browser, url: str, *, deadline_s: float, **context) -> Page:
    """The page at `url`, in Korean; `problems` holds its uncaught errors and what its console calls one."""
    page = browser.new_context(locale="ko-KR", **context).new_page()
    page.set_default_timeout(deadline_s * 1000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
    page.goto(url)
    return page
