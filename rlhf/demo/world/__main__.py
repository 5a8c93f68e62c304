"""Writes the data files of the demo that come from its grammar: python -m rlhf.demo.world"""

from __future__ import annotations

import json

from rlhf.data.embedded import FOLDER
from rlhf.demo.world.grammar import korean_world
from rlhf.demo.world.rows import data_sets


def written() -> dict[str, str]:
    """The text of every file, by its name."""
    return {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in data_sets(korean_world()).items()
    }


if __name__ == "__main__":
    for name, text in written().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
