"""Time and memory of `rlhf data import`, `check` and `filter` on many rows.

python benchmarks/rows.py --rows 1000000 --out rows.json

The rows are made here: Korean instructions and answers of 20 to 200 characters, of which 1 in 50 repeats an earlier
row, 1 in 50 repeats one with another ending, 1 in 50 holds a telephone number or an e-mail address, and 1 in 200 cannot
be used. Each command runs in a process of its own on the result of `import`; seconds are wall-clock and of the CPU, and
the memory is the largest resident set of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import CONDITIONS, ROOT, say, write

SYLLABLES = (
    "가나다라마바사아자차카타파하고노도로모보소오조초구누두루무부수우주추기니디리미비시이지치강남동산성원장정진한"
)
PARTICLES = ("은", "는", "이", "가", "을", "를", "에서", "으로", "와", "의", "에게", "까지", "부터", "도")
ENDINGS = ("해 주세요.", "알려 주세요.", "설명해 줘.", "어떻게 하나요?", "무엇인가요?", "추천해 주세요.", "비교해 줘.")
CLOSINGS = ("했습니다.", "입니다.", "하면 됩니다.", "좋습니다.", "필요합니다.", "있어요.", "달라집니다.")
PERSONAL = ("010-{:04d}-{:04d}", "hong{:04d}{:04d}@example.com")
RECENT = 1000  # earlier rows from which repeated ones are drawn


@dataclass(frozen=True, slots=True)
class Measured:
    """One command: its words, rows of its input, seconds, and the largest resident set in MB."""

    command: str
    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float


def made_rows(count: int, seed: int = 17) -> Iterator[str]:
    """Lines of JSON, the same for a seed; a few of them are cut short or lack an answer."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(20_000)]
    earlier: list[tuple[str, str]] = []
    for _ in range(count):
        kind = draw.random()
        if earlier and kind < 0.04:
            asked, said = draw.choice(earlier)
            asked = asked if kind < 0.02 else f"{asked.rstrip('.')} 부탁"
        else:
            asked, said = _text(draw, words, ENDINGS), _text(draw, words, CLOSINGS)
            if len(earlier) < RECENT:
                earlier.append((asked, said))
            else:
                earlier[draw.randrange(RECENT)] = (asked, said)
        if 0.04 <= kind < 0.06:
            said += " " + draw.choice(PERSONAL).format(draw.randrange(10_000), draw.randrange(10_000))
        line = json.dumps({"instruction": asked, "input": "", "output": said}, ensure_ascii=False)
        if 0.06 <= kind < 0.065:
            line = line[:-9] if kind < 0.0625 else json.dumps({"instruction": asked}, ensure_ascii=False)
        yield line + "\n"


def _text(draw: random.Random, words: Sequence[str], endings: Sequence[str]) -> str:
    count = draw.randint(4, 38)  # words of about five characters, the space included
    parts = map(str.__add__, draw.choices(words, k=count), draw.choices(PARTICLES, k=count))
    return " ".join([*parts, draw.choice(endings)])


def commands(folder: Path, *, exact: bool) -> list[tuple[str, list[str]]]:
    """(name, words after `rlhf`) of each measured command, in their order."""
    rows, kept = str(folder / "rows.jsonl"), ["--out", str(folder / "kept.jsonl")]
    found = [
        ("import", ["data", "import", "--in", str(folder / "made.jsonl"), "--out", rows]),
        ("check", ["data", "check", rows]),
        ("filter, rows alone", ["data", "filter", "--in", rows, *kept, "--min-chars", "16", "--pii", "mask"]),
        ("filter, all rules of a row", ["data", "filter", "--in", rows, *kept, "--clean", "--min-chars", "16",
                                        "--language", "ko", "--boilerplate", "--rude", "any", "--pii", "drop"]),
        ("filter, minhash", ["data", "filter", "--in", rows, *kept, "--dedup", "minhash"]),
    ]  # fmt: skip
    return found + [("filter, cosine", ["data", "filter", "--in", rows, *kept, "--dedup", "cosine"])] * exact


def measured(name: str, words: Sequence[str], rows: int) -> Measured:
    """Runs one command to its end."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "rlhf", *words], env=os.environ | CONDITIONS, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in ((0, 1) if "check" in words else (0,)):  # 1: check found something
        raise SystemExit(f"rlhf {' '.join(words)} ended with status {child.returncode}")
    seconds = time.perf_counter() - started
    return Measured(name, rows, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def table(measures: Sequence[Measured]) -> str:
    """Markdown."""
    lines = ["| command | rows | seconds | CPU seconds | peak MB |", "|---|---|---|---|---|"]
    lines += [
        f"| {each.command} | {each.rows:,} | {each.seconds:.0f} | {each.cpu_seconds:.0f} | {each.peak_mb:.0f} |"
        for each in measures
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to make (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--work", type=Path, help="scratch folder (default: beside --out, removed at the end)")
    parser.add_argument("--exact", action="store_true", help="also the exact comparison, whose time grows fastest")
    parser.add_argument("--only", nargs="+", default=[], help="of the commands, those whose name begins so")
    given = parser.parse_args()
    folder = given.work or given.out.with_suffix(".work")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "made.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(made_rows(given.rows))
    measures = []
    for name, words in commands(folder, exact=given.exact):
        if not given.only or name.startswith(tuple(given.only)):
            measures.append(measured(name, words, given.rows))
            say(table(measures[-1:]).splitlines()[-1])
    write(given.out, {"rows": given.rows, "commands": [asdict(each) for each in measures]})
    print(table(measures))
    if given.work is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
