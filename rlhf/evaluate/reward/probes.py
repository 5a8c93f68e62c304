"""Edits of prompts that should not change a score, and of answers that should: pure functions of text or ids.

Each gets a random stream of its own, seeded by the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rlhf.data.encode import EncodedRanking, Encoder, Ids
from rlhf.data.korean import split_sentences
from rlhf.data.records import Message, Ranking
from rlhf.data.tokenizer import ChatTokenizer

TextEdit = Callable[[str, np.random.Generator], str]
EditedPart = Literal["prompt", "answers"]
Edited = Sequence[EncodedRanking]
MAX_PROBED = 200
SEED = 20231
CLOSING = "도움이 되셨다면 좋겠습니다. 감사합니다!"
WORDS_PER_SWAP = 4

_FINAL_PUNCTUATION = re.compile(r"[\s.?!…~。？！]+$")
# Polite endings with the same meaning; the first that matches is replaced.
_ENDINGS = (
    ("합니까", "하나요"),
    ("입니까", "인가요"),
    ("습니까", "나요"),
    ("주세요", "주시겠어요"),
    ("해줘", "해 주세요"),
    ("줘", "주세요"),
    ("나요", "나"),
    ("까요", "까"),
    ("가요", "가"),
    ("합니다", "해요"),
    ("입니다", "이에요"),
)


def trailing_space(text: str, generator: np.random.Generator) -> str:
    """The text and one space."""
    return f"{text} "


def swapped_words(text: str, generator: np.random.Generator) -> str:
    """One word in four, at least one, swapped with the next; a single word stays."""
    parts = re.split(r"(\s+)", text.strip())
    words = parts[::2]
    if len(words) < 2:
        return text
    for place in generator.choice(len(words) - 1, max(1, len(words) // WORDS_PER_SWAP), replace=False):
        words[place], words[place + 1] = words[place + 1], words[place]
    parts[::2] = words
    return "".join(parts)


def paraphrased(text: str, generator: np.random.Generator) -> str:
    """The text without its final punctuation, and with another polite ending where one of the rules applies."""
    bare = _FINAL_PUNCTUATION.sub("", text) or text
    for ending, other in _ENDINGS:
        if bare.endswith(ending):
            return bare.removesuffix(ending) + other
    return bare


def first_half(text: str, generator: np.random.Generator) -> str:
    """The first half of the characters, rounded up."""
    whole = text.strip()
    return whole[: (len(whole) + 1) // 2].rstrip()


def twice(text: str, generator: np.random.Generator) -> str:
    """The text twice, with a space between."""
    return f"{text.strip()} {text.strip()}"


def with_closing(text: str, generator: np.random.Generator) -> str:
    """The text and a polite closing without content."""
    return f"{text.strip()} {CLOSING}"


def shuffled_sentences(text: str, generator: np.random.Generator) -> str:
    """The sentences in another order; one sentence stays as it is."""
    sentences = split_sentences(text)
    if len(set(sentences)) < 2:
        return text
    mixed = [sentences[place] for place in generator.permutation(len(sentences))]
    return " ".join(mixed if mixed != sentences else [*sentences[1:], sentences[0]])


PROMPT_EDITS: dict[str, TextEdit] = {
    "trailing_space": trailing_space,
    "swapped_words": swapped_words,
    "paraphrase": paraphrased,
}
ANSWER_EDITS: dict[str, TextEdit] = {
    "half": first_half,
    "twice": twice,
    "closing": with_closing,
    "shuffled": shuffled_sentences,
}


def edit_prompt(ranking: Ranking, edit: TextEdit, generator: np.random.Generator) -> Ranking:
    """The ranking with its last user turn edited."""
    *before, last = ranking.prompt
    return replace(ranking, prompt=(*before, replace(last, content=edit(last.content, generator))))


def edit_answers(ranking: Ranking, edit: TextEdit, generator: np.random.Generator) -> Ranking:
    """The ranking with every answer edited."""
    return replace(ranking, responses=tuple(edit(response, generator) for response in ranking.responses))


def without_eos(answer: Ids, eos_id: int) -> Ids:
    """The answer without its EOS; an answer that is only EOS, or has none, stays."""
    return answer[:-1] if len(answer) > 1 and answer[-1] == eos_id else answer


def plain_prompt(messages: Sequence[Message], item: EncodedRanking, tokenizer: ChatTokenizer, max_length: int) -> Ids:
    """Ids of the turns' text without a template, a newline after each, cut on the left to leave room for the longest
    answer."""
    text = "".join(f"{part}\n" for message in messages for part in (message.content, message.input) if part)
    ids = np.asarray(tokenizer.text_ids(text), dtype=np.int32)
    room = max(1, max_length - max(map(len, item.answers)))
    start = min(len(tokenizer.start), room - 1)
    return ids if len(ids) <= room else np.concatenate([ids[:start], ids[len(ids) - room + start :]])


@dataclass(frozen=True, slots=True)
class ProbeInputs:
    """One probe on the rows it changes: the answers `answers[i]` of row `rows[i]` are scored as the tree `trees[i]`.

    A probe of answers edits only those that rank above some other answer.
    """

    name: str
    edits: EditedPart
    rows: list[int]
    answers: list[list[int]]
    trees: list[tuple[Ids, list[Ids]]]


def probe_inputs(
    rankings: Sequence[Ranking], encoded: Sequence[EncodedRanking], tokenizer: ChatTokenizer, max_length: int
) -> list[ProbeInputs]:
    """Every probe on up to MAX_PROBED rankings, spread evenly over all, rendered and tokenised as `encoded` was."""
    chosen = np.linspace(0, len(rankings) - 1, min(len(rankings), MAX_PROBED)).round().astype(int).tolist()
    few, originals = [rankings[row] for row in chosen], [encoded[row] for row in chosen]

    eos = np.asarray([tokenizer.eos_id], dtype=np.int32)

    def rendered(change: Callable[[Ranking, TextEdit, np.random.Generator], Ranking], edit: TextEdit) -> Edited:
        changed = [
            change(each, edit, np.random.default_rng((SEED, row))) for row, each in zip(chosen, few, strict=True)
        ]
        return Encoder(tokenizer, max_length).rankings(changed)

    def answers_changed(change: Callable[[Ids], Ids]) -> Edited:
        return [replace(item, answers=tuple(map(change, item.answers))) for item in originals]

    plain = [
        replace(item, prompt=plain_prompt(each.prompt, item, tokenizer, max_length))
        for each, item in zip(few, originals, strict=True)
    ]
    edited: list[tuple[str, EditedPart, Edited]] = [("no_template", "prompt", plain)]
    edited += [(name, "prompt", rendered(edit_prompt, edit)) for name, edit in PROMPT_EDITS.items()]
    edited += [(name, "answers", rendered(edit_answers, edit)) for name, edit in ANSWER_EDITS.items()]
    edited.append(("empty", "answers", answers_changed(lambda answer: eos)))
    edited.append(("no_eos", "answers", answers_changed(lambda answer: without_eos(answer, tokenizer.eos_id))))
    return [inputs_of(name, part, chosen, originals, items) for name, part, items in edited]


def inputs_of(name: str, edits: EditedPart, rows: Sequence[int], originals: Edited, edited: Edited) -> ProbeInputs:
    """What to score: the rows whose prompt changed, or the better answers that changed."""
    probe = ProbeInputs(name, edits, [], [], [])
    for row, item, other in zip(rows, originals, edited, strict=True):
        if edits == "prompt":
            changed = [] if np.array_equal(item.prompt, other.prompt) else list(range(len(item.answers)))
        else:
            better = [number for number, rank in enumerate(item.ranks) if rank < max(item.ranks)]
            changed = [number for number in better if not np.array_equal(item.answers[number], other.answers[number])]
        if changed:
            probe.rows.append(row)
            probe.answers.append(changed)
            probe.trees.append((other.prompt, [other.answers[number] for number in changed]))
    return probe
