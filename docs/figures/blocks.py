"""What the scripts of this folder share: Markdown tables, and pages whose generated parts stand between markers."""

from __future__ import annotations

import re
from collections.abc import Sequence


def replaced(page: str, name: str, text: str) -> str:
    """The page with `text` (which ends a line) between the markers of `name`.

    Raises: SystemExit if the page does not hold the markers once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise SystemExit(f"the page must hold {begin} ... {end} once")
    return pattern.sub(lambda _: f"{begin}\n{text}{end}", page)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, each row a line."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
