"""Files of many rows: chats of the embedded data, each row with a number of its own, so that none is a double."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf.data.embedded import data_path


def write_rows(path: Path, count: int) -> None:
    """`count` demonstrations as messages, written one by one."""
    source = Path(data_path("demo:rankings_train")).read_text(encoding="utf-8").splitlines()
    exchanges = [(row["prompt"], row["responses"][0]) for row in map(json.loads, source)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt, answer = exchanges[number % len(exchanges)]
            asked = {"role": "user", "content": f"{prompt} ({number}번째 질문)"}
            messages = [asked, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
