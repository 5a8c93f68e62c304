"""Models and rows for a comparison: made once, given to both sides as the same ids."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

import rlhf
from rlhf.data.encode import EncodedRanking, EncodedSequence, Encoder
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import make_tiny_base

os.environ.setdefault("HF_HUB_OFFLINE", "1")
assert rlhf  # sets OpenMP's waiting before torch is loaded

TEMPLATE, MAX_LENGTH, SEED = "kullm", 256, 17
# What the demo's recipes set for its tiny model and bears on the mathematics, as other frameworks have it.
NOT_THE_DEMOS = {
    "sft": (),
    "reward": ("train.lr_groups=[]",),
    "ppo": ("ppo.lam=0.95", "sampling.temperature=1.0"),
}
TINY = TinySize(hidden=256, layers=4, heads=4, vocabulary=8000, epochs=0.01)
LARGER = TinySize(hidden=512, layers=8, heads=8, vocabulary=8000, epochs=0.002)  # 34 M parameters, for memory


@dataclass(frozen=True)
class Base:
    """A GPT-NeoX folder with its tokenizer, and its size."""

    path: Path
    size: TinySize
    tokenizer: ChatTokenizer

    @property
    def vocabulary(self) -> int:
        return int(json.loads((self.path / "config.json").read_text())["vocab_size"])


def make_base(data: Path, folder: Path, size: TinySize) -> Base:
    """A base trained for an instant: its speed is that of any other of its shape."""
    if not (folder / "config.json").is_file():
        make_tiny_base([str(data / "sft_train.jsonl")], folder, size=size, seed=SEED)
    return Base(folder, size, load_tokenizer(str(folder), TEMPLATE))


def demonstrations(path: Path, base: Base, count: int) -> tuple[list[Demonstration], list[EncodedSequence]]:
    """The first rows, as records and as ids of at most 256 tokens."""
    records = read_records(DataSource(str(path), limit=count), Demonstration, on_bad_row="skip").records
    return records, Encoder(base.tokenizer, MAX_LENGTH).demonstrations(records)


def rankings(path: Path, base: Base, count: int, *, answers: int = 2) -> tuple[list[Ranking], list[EncodedRanking]]:
    """The first rows with at least `answers` answers that need no cut, each with `answers` of them (fixed seed)."""
    kept: list[Ranking] = []
    encoded: list[EncodedRanking] = []
    for number, record in enumerate(read_records(DataSource(str(path)), Ranking, on_bad_row="skip").records):
        if record.num_answers < answers:
            continue
        chosen = sorted(np.random.default_rng([SEED, number]).permutation(record.num_answers)[:answers].tolist())
        small = Ranking(
            record.prompt, tuple(record.responses[i] for i in chosen), tuple(record.ranks[i] for i in chosen)
        )
        encoder = Encoder(base.tokenizer, MAX_LENGTH)
        if small.all_tied:
            continue
        ids = encoder.rankings([small])[0]
        cut = encoder.report.rows_with_cut_prompt + encoder.report.rows_with_cut_answer
        alike = len({answer.tobytes() for answer in ids.answers}) < answers
        if cut or alike or encoder.report.rows_with_dropped_turns:
            continue
        kept.append(small)
        encoded.append(ids)
        if len(kept) == count:
            break
    return kept, encoded


def pairs(encoded: Sequence[EncodedRanking]) -> tuple[list[list[int]], list[list[int]]]:
    """Every untied pair as (chosen, rejected) ids, prompt included: what a pairwise trainer reads."""
    chosen, rejected = [], []
    for item in encoded:
        whole = [np.concatenate([item.prompt, answer]).tolist() for answer in item.answers]
        for first, second in combinations(range(len(whole)), 2):
            if item.ranks[first] == item.ranks[second]:
                continue
            better, worse = sorted((first, second), key=lambda answer: item.ranks[answer])
            chosen.append(whole[better])
            rejected.append(whole[worse])
    return chosen, rejected


def write_demonstrations(path: Path, records: Sequence[Demonstration]) -> Path:
    """As JSONL of messages."""
    lines = ({"messages": [{"role": m.role, "content": m.content} for m in record.messages]} for record in records)
    return _write(path, lines)


def write_rankings(path: Path, records: Sequence[Ranking]) -> Path:
    """As JSONL of prompt, responses and ranks."""
    lines = (
        {"prompt": record.prompt[-1].content, "responses": record.responses, "ranks": record.ranks}
        for record in records
    )
    return _write(path, lines)


def _write(path: Path, lines: object) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")  # type: ignore[attr-defined]
    return path
