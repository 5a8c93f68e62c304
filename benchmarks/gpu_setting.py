"""What the GPU benchmark measures: the model's shape, and the sizes of its batches."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape, train_tokenizer

TEXTS = (
    "안녕하세요? 오늘은 날씨가 참 좋네요!",
    "점심에 뭘 먹으면 좋을까요?",
    "### 명령어:\n내일 비가 온대요.\n\n### 응답:\n",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one setting. Lengths in tokens, `answer` of a ranked answer; `steps` are timed, after one that is not."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    longest: int
    micro_tokens: int
    sequences: int
    rankings: int
    answers: int
    answer: int
    slots: tuple[int, ...]
    prompt: int
    new_tokens: int
    rollout: int
    steps: int


# The shape of EleutherAI/polyglot-ko-1.3b.
WHOLE = Sizes(2048, 24, 16, 30080, 1024, 8192, 32, 16, 4, 192, (32, 64, 128), 128, 128, 64, 3)
TINY = Sizes(64, 2, 4, 400, 64, 128, 4, 3, 3, 16, (2, 4), 12, 8, 4, 2)


@dataclass(frozen=True, slots=True)
class Setting:
    """A device, a dtype, and a folder that holds the model's config.json and a tokenizer, but no weights."""

    device: str
    dtype: str
    sizes: Sizes
    folder: str

    def prepare(self) -> None:
        """Writes the folder. Weights are random, and made where they are needed."""
        sizes, folder = self.sizes, Path(self.folder)
        size = TinySize(hidden=sizes.hidden, layers=sizes.layers, heads=sizes.heads, positions=2 * sizes.longest)
        polyglot_shape(size, sizes.vocabulary).save_pretrained(folder)
        train_tokenizer(TEXTS, 300).save_pretrained(folder)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Setting:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        sizes = content.pop("sizes")
        return cls(**content, sizes=Sizes(**{**sizes, "slots": tuple(sizes["slots"])}))
