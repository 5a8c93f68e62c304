"""Other libraries on the sentences of `rlhf evaluate measures`: korcen and nerv-filter (profanity), Kiwi (register).

In an environment of its own, which needs nothing of rlhf:

    pip install korcen nerv-filter kiwipiepy
    python benchmarks/measures.py

Prints precision, recall and agreement for rude words and agreement for register, over all rows and the held-out half.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELLED = Path(__file__).parents[1] / "rlhf" / "evaluate" / "measures" / "labelled"
Rows = list[dict[str, Any]]


def rows_of(measure: str, *, held_out: bool) -> Rows:
    """The shipped rows, or the half whose texts' SHA-256 begins with an odd byte."""
    rows = [json.loads(line) for line in (LABELLED / f"{measure}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if not held_out or hashlib.sha256(row["text"].encode()).digest()[0] % 2]


def profanity() -> dict[str, Callable[[str], bool]]:
    """What each library calls profane, at its usual settings."""
    from korcen import korcen
    from nerv_filter import ModerationAction, NervFilter

    nerv = NervFilter()
    return {
        "korcen": lambda text: bool(korcen.check(text)),
        "nerv-filter": lambda text: nerv.analyze(text).action != ModerationAction.NORMAL,
    }


def kiwi_register() -> Callable[[str], str]:
    """Register by the final endings (EF) that Kiwi finds: polite where one ends in 요, 니다, 니까, 시오 or 시다."""
    from kiwipiepy import Kiwi

    kiwi = Kiwi()
    polite = re.compile(r"(?:요|죠|니다|니까|시오|시다|쇼)$")

    def register(text: str) -> str:
        tokens = [token for sentence in kiwi.split_into_sents(text, return_tokens=True) for token in sentence.tokens]
        endings = {polite.search(token.form) is not None for token in tokens if token.tag == "EF"}
        return "mixed" if len(endings) == 2 else "polite" if True in endings else "plain" if endings else "none"

    return register


def main() -> None:
    for held_out in (False, True):
        print("held-out half" if held_out else "all rows")
        rude, register = rows_of("rude", held_out=held_out), rows_of("register", held_out=held_out)
        for name, holds in profanity().items():
            start = time.perf_counter()
            pairs = [(row["label"], holds(row["text"])) for row in rude]
            each_ms = 1000 * (time.perf_counter() - start) / len(rude)
            both, given, has = (sum(map(test, pairs)) for test in (all, lambda pair: pair[1], lambda pair: pair[0]))
            agree = sum(label == found for label, found in pairs) / len(pairs)
            print(f"  {name:20} {both / given:.3f} {both / has:.3f} {agree:.3f}  {each_ms:.2f} ms per sentence")
        kiwi = kiwi_register()
        right = sum(kiwi(row["text"]) == row["label"] for row in register)
        print(f"  {'Kiwi, register':20} {right / len(register):.3f}")


if __name__ == "__main__":
    main()
