"""Rows for the peers: texts that every side turns into the same ids.

A row is kept where the prompt and the answer, tokenised one after the other as the peers do, are the ids of this
project's template; then no side has more to do than another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from material import Base, demonstrations, rankings, write_demonstrations, write_rankings

SPARE = 4  # rows read for each one that is wanted
SWIFT_SFT, SWIFT_PAIRS, SWIFT_PROMPTS = "swift_sft.jsonl", "swift_pairs.jsonl", "swift_prompts.jsonl"


@dataclass(frozen=True)
class Rows:
    """Files of one stage: `ours` for this project, `folder` with those of the peers."""

    ours: Path
    folder: Path
    num_rows: int
    tokens: int = 0


def sft_rows(data: Path, base: Base, folder: Path, count: int) -> Rows:
    """Single exchanges of at most 256 tokens, as texts."""
    records, encoded = demonstrations(data / "sft_train.jsonl", base, SPARE * count)
    kept, texts, tokens = [], [], 0
    for record, item in zip(records, encoded, strict=True):
        start = int(item.answer_mask.argmax())
        exchange = _texts(base, item.ids[:start], item.ids[start:])
        if exchange is None or not item.answer_mask[start:].all() or len(kept) == count:
            continue
        kept.append(record)
        texts.append(exchange)
        tokens += len(item.ids)
    _require(len(kept), count, "demonstrations")
    _write(folder / "lf_sft.jsonl", ({"prompt": prompt, "response": answer} for prompt, answer in texts))
    _write(folder / SWIFT_SFT, ({"messages": _messages(prompt, answer)} for prompt, answer in texts))
    return Rows(write_demonstrations(folder / "ours_sft.jsonl", kept), folder, count, tokens)


def reward_rows(data: Path, base: Base, folder: Path, count: int) -> Rows:
    """Pairs of at most 256 tokens each, as texts."""
    records, encoded = rankings(data / "preference_train.jsonl", base, SPARE * count)
    kept, texts, tokens = [], [], 0
    for record, item in zip(records, encoded, strict=True):
        better, worse = sorted((0, 1), key=lambda answer, item=item: item.ranks[answer])
        both = [_texts(base, item.prompt, item.answers[answer]) for answer in (better, worse)]
        if None in both or len(kept) == count:
            continue
        kept.append(record)
        texts.append((both[0][0], both[0][1], both[1][1]))
        tokens += sum(len(item.prompt) + len(answer) for answer in item.answers)
    _require(len(kept), count, "pairs")
    names = ("prompt", "chosen", "rejected")
    _write(folder / "lf_reward.jsonl", (dict(zip(names, row, strict=True)) for row in texts))
    swift = (
        {"messages": _messages(prompt, chosen), "rejected_response": rejected} for prompt, chosen, rejected in texts
    )
    _write(folder / SWIFT_PAIRS, swift)
    return Rows(write_rankings(folder / "ours_reward.jsonl", kept), folder, count, tokens)


def prompt_rows(base: Base, folder: Path, records: Path, ids: Path) -> Rows:
    """Prompts of ppo_material, as texts in the template."""
    prompts = json.loads(ids.read_text(encoding="utf-8"))["ids"]
    texts = [base.tokenizer.text(each) for each in prompts]
    _write(folder / "lf_ppo.jsonl", ({"prompt": text, "response": ""} for text in texts))
    _write(folder / SWIFT_PROMPTS, ({"messages": [{"role": "user", "content": text}]} for text in texts))
    return Rows(records, folder, len(texts))


def write_lf_index(folder: Path) -> None:
    """dataset_info.json, which names LLaMA-Factory's files and their columns."""
    pair = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    plain = {"prompt": "prompt", "response": "response"}
    content = {
        "sft": {"file_name": "lf_sft.jsonl", "columns": plain},
        "rm": {"file_name": "lf_reward.jsonl", "ranking": True, "columns": pair},
        "ppo": {"file_name": "lf_ppo.jsonl", "columns": plain},
    }
    (folder / "dataset_info.json").write_text(json.dumps(content), encoding="utf-8")


def _texts(base: Base, prompt: Any, answer: Any) -> tuple[str, str] | None:
    """Prompt and answer (without its EOS) as texts; None where their ids are not those texts' ids."""
    if len(answer) < 2 or answer[-1] != base.tokenizer.eos_id:
        return None
    texts = base.tokenizer.text(prompt), base.tokenizer.text(answer[:-1])
    again = base.tokenizer.token_ids(texts)
    same = [np.array_equal(ids, given) for ids, given in zip(again, (prompt, answer[:-1]), strict=True)]
    return texts if all(same) else None


def _messages(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _require(found: int, count: int, what: str) -> None:
    if found < count:
        raise SystemExit(f"{found} {what} of the data can be given to every side alike, {count} wanted; lower --rows")


def _write(path: Path, rows: Any) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
