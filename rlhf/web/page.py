"""The one-file pages of web applications: each with the style and script they share, and its security policy."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def load_page(package: str) -> str:
    """page.html of a package, `/* shared.css */` and `/* shared.js */` in it replaced by those files."""
    page = files(package).joinpath("page.html").read_text(encoding="utf-8")
    for name in ("shared.css", "shared.js"):
        page = page.replace(f"/* {name} */\n", files("rlhf.web").joinpath(name).read_text(encoding="utf-8"))
    return page


def content_policy(page: str) -> str:
    """A Content-Security-Policy under which `page` runs its own inline style and script, and nothing else runs."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
