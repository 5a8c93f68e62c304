"""The one-file pages: the shared style and script are in them, and nothing but those blocks may run."""

from __future__ import annotations

import base64
import hashlib
import re
import socket

import pytest

from rlhf.errors import ConfigError
from rlhf.web.page import content_policy, load_page
from rlhf.web.server import listen, url_of

PAGES = ("rlhf.curate.label", "rlhf.serve.chat")


@pytest.mark.parametrize("package", PAGES)
def test_a_page_holds_the_shared_style_and_script_once(package: str) -> None:
    page = load_page(package)
    assert "shared." not in page
    assert [page.count(f"<{tag}>") for tag in ("style", "script")] == [1, 1]
    assert page.count("<script") == 1
    for part in (
        "function toast(",
        "async function send(",
        "class Refused ",
        "#toast { position: fixed",
        ":focus-visible {",
    ):
        assert page.count(part) == 1, part
    script = page.partition("<script>")[2].lstrip()
    assert script.startswith('"use strict";')
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg"}  # it fetches nothing


@pytest.mark.parametrize("package", PAGES)
def test_the_policy_lets_those_blocks_run_and_nothing_else(package: str) -> None:
    page = load_page(package)
    rules = dict(rule.split(" ", 1) for rule in content_policy(page).split("; "))
    for tag in ("script", "style"):
        block = page.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"
    assert " style=" not in page.partition("<script>")[0]  # the policy would drop it


def test_the_address_to_open() -> None:
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url_of("::1", 80) == "http://[::1]:80"
    assert url_of("0.0.0.0", 80) == url_of("::", 80) == f"http://{socket.gethostname()}:80"


def test_a_port_in_use_names_the_address_and_the_fix() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match="cannot listen") as caught:
            listen("127.0.0.1", port)
    assert caught.value.where == f"127.0.0.1:{port}"
    assert caught.value.fix == "choose another --port (0 takes a free one)"
