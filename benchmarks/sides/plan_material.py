"""Random models of given shapes, and rows that fill every packed row to its last token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from rlhf.data.embedded import data_path
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape, read_documents, train_tokenizer

VOCABULARY = 30080
SIZES = {
    "100M": TinySize(hidden=640, layers=12, heads=10),
    "350M": TinySize(hidden=1024, layers=23, heads=16),
}
ROWS = 64
DATA = "demo:handwritten_train"


@dataclass(frozen=True)
class Material:
    """Models and data in one folder."""

    folder: Path

    def model(self, size: str) -> Path:
        """A GPT-NeoX of random weights, made once."""
        path = self.folder / f"base-{size}"
        if (path / "tokenizer.json").is_file():
            return path
        torch.manual_seed(17)
        GPTNeoXForCausalLM(polyglot_shape(SIZES[size], VOCABULARY)).save_pretrained(path)
        self._tokenizer().save_pretrained(path)
        return path

    def _tokenizer(self) -> Any:
        path = self.folder / "tokenizer"
        if path.is_dir():
            return AutoTokenizer.from_pretrained(path)
        made = train_tokenizer(read_documents([data_path(DATA)]), 2000)
        made.save_pretrained(path)
        return made

    def demonstrations(self) -> Path:
        """Conversations whose answer is longer than any row: each is cut to exactly data.max_length tokens."""
        text = self._long_text(20000)
        rows = [
            {"messages": [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": text[start:]}]}
            for start in range(ROWS)
        ]
        return self._write("sft.jsonl", rows)

    def rankings(self) -> Path:
        """Two answers to one prompt, both longer than any row."""
        text = self._long_text(20000)
        rows = [
            {"prompt": "안녕?", "responses": [text[start:], text[start + 500 :]], "ranks": [1, 2]}
            for start in range(ROWS)
        ]
        return self._write("rankings.jsonl", rows)

    def prompts(self) -> Path:
        """Prompts longer than sampling.max_prompt_tokens: each is cut to it."""
        text = self._long_text(3000)
        return self._write("prompts.jsonl", [{"prompt": text[start:]} for start in range(ROWS)])

    def _long_text(self, length: int) -> str:
        documents = read_documents([data_path(DATA)])
        return "\n".join(documents)[:length]

    def _write(self, name: str, rows: list[dict[str, object]]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path
