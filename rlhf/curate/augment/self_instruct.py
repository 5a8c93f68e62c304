"""Self-Instruct (arXiv:2212.10560): new instructions in the style of examples, then an input and an answer for each.

Each round shows the model sets of examples, mostly seeds and some of its own earlier instructions, and keeps its new
instructions that are usable and differ enough from all before. The model then says whether each is a classification:
if so it writes the label first and the input to match, because models that write the input first give nearly all
inputs the same label.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.prompts import ReplySchema, Text, messages, prompt_texts
from rlhf.curate.augment.rouge import SeenInstructions
from rlhf.curate.augment.writer import Rejected, Writer
from rlhf.curate.endpoint.messages import ChatMessage
from rlhf.curate.refusals import is_refusal
from rlhf.data.korean import hangul_share

SEEDS_SHOWN, OWN_SHOWN = 6, 2  # examples per prompt, as in the paper
NUM_ASKED = 6  # new instructions that a prompt asks for
MOST_PROMPTS = 16  # per round
FEWEST_WORDS, MOST_WORDS = 3, 150
LEAST_HANGUL = 0.5
SOURCE = "self-instruct"
PROMPTS = prompt_texts("self_instruct")

_ORDINALS = ("첫 번째", "두 번째", "세 번째", "네 번째")
_NO_INPUT = frozenset({"없음", "없음.", "해당 없음", "해당 없음.", "빈 문자열", "n/a", "none", "-"})
_NOT_TEXT = re.compile(
    r"(?:그림|사진|이미지|그래프|도표|동영상|영상|음악|노래|파일|지도)(?:을|를|이|가|은|는)?\s*"
    r"(?:그려|그리|보여|보고|첨부|재생|틀어|열어|올려|업로드|다운로드|찍어|저장)"
)

Outcomes = list[dict[str, Any] | Rejected]


class Instructions(ReplySchema):
    instructions: list[Text]


class Classification(ReplySchema):
    is_classification: bool


class Instance(ReplySchema):
    input: Text
    output: Text


class LabelledInstance(ReplySchema):
    label: Text
    input: Text

    @property
    def output(self) -> str:
        return self.label


@dataclass(slots=True)
class _Run:
    writer: Writer
    seeds: Sequence[str]
    seed: int
    seen: SeenInstructions
    own: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)  # instructions without an answer so far


def self_instruct(writer: Writer, seeds: Sequence[str], options: AugmentOptions) -> Iterator[Outcomes]:
    """Endless rounds of rows {instruction, input, output, source, is_classification}."""
    run = _Run(writer, seeds, options.seed, SeenInstructions(options.similarity))
    for seed in seeds:
        run.seen.add(seed)
    number, missing = 0, options.num
    while missing > 0:
        outcomes = _new_instructions(run, number, missing)
        chosen, run.waiting = run.waiting[:missing], run.waiting[missing:]
        outcomes += _instances(run, chosen)
        missing -= sum(not isinstance(outcome, Rejected) for outcome in outcomes)
        number += 1
        yield outcomes


def _new_instructions(run: _Run, number: int, missing: int) -> Outcomes:
    """Fills up the waiting instructions; returns what was rejected."""
    lacking = missing - len(run.waiting)
    num_prompts = min(MOST_PROMPTS, math.ceil(max(0, lacking) / NUM_ASKED))
    prompts = [_examples_prompt(run, number, index) for index in range(num_prompts)]
    outcomes: Outcomes = []
    for answer in run.writer.write(prompts, repeat(Instructions)):
        if isinstance(answer, Rejected):
            outcomes.append(answer)
            continue
        for instruction in answer.instructions:
            rejected = _rejected(instruction, run.seen)
            if rejected is not None:
                outcomes.append(rejected)
                continue
            run.seen.add(instruction)
            run.own.append(instruction)
            run.waiting.append(instruction)
    return outcomes


def _examples_prompt(run: _Run, number: int, index: int) -> tuple[ChatMessage, ...]:
    draw = random.Random(f"{run.seed} {number} {index}")
    own = draw.sample(run.own, min(OWN_SHOWN, len(run.own)))
    shown = own + draw.sample(list(run.seeds), min(SEEDS_SHOWN + OWN_SHOWN - len(own), len(run.seeds)))
    draw.shuffle(shown)
    examples = "\n".join(f"{place}. {' '.join(text.split())}" for place, text in enumerate(shown, 1))
    return messages(PROMPTS["system"], PROMPTS["instructions"], examples=examples, count=NUM_ASKED)


def _rejected(instruction: str, seen: SeenInstructions) -> Rejected | None:
    """Why an instruction cannot be used, if so."""
    if not FEWEST_WORDS <= len(instruction.split()) <= MOST_WORDS:
        return Rejected("too short or too long", instruction)
    if hangul_share(instruction) < LEAST_HANGUL:
        return Rejected("not Korean", instruction)
    if not instruction[0].isalnum() and instruction[0] not in "\"'“‘<[(":
        return Rejected("starts with punctuation", instruction)
    if _NOT_TEXT.search(instruction):
        return Rejected("needs more than text", instruction)
    similar = seen.similar_to(instruction)
    return None if similar is None else Rejected("too similar to another", f"{instruction} ~ {similar}")


def _instances(run: _Run, instructions: Sequence[str]) -> Outcomes:
    asked = [messages(PROMPTS["system"], PROMPTS["is_classification"], instruction=each) for each in instructions]
    kinds = run.writer.judge(asked, Classification)
    outcomes: Outcomes = [kind for kind in kinds if isinstance(kind, Rejected)]
    known = [
        (instruction, kind.is_classification)
        for instruction, kind in zip(instructions, kinds, strict=True)
        if not isinstance(kind, Rejected)
    ]
    schemas = [LabelledInstance if labelled else Instance for _, labelled in known]
    answers = run.writer.write([_instance_prompt(run, *each) for each in known], schemas)
    return outcomes + [_row(*each, answer) for each, answer in zip(known, answers, strict=True)]


def _instance_prompt(run: _Run, instruction: str, labelled: bool) -> tuple[ChatMessage, ...]:
    if not labelled:
        return messages(PROMPTS["system"], PROMPTS["input_first"], instruction=instruction)
    ordinal = random.Random(f"{run.seed} {instruction}").choice(_ORDINALS)
    return messages(PROMPTS["system"], PROMPTS["output_first"], instruction=instruction, ordinal=ordinal)


def _row(instruction: str, labelled: bool, answer: Instance | LabelledInstance | Rejected) -> dict[str, Any] | Rejected:
    if isinstance(answer, Rejected):
        return answer
    given, output = answer.input, answer.output
    if given.lower() in _NO_INPUT:
        given = ""
    if is_refusal(output):
        return Rejected("refused", output)
    if not output or output == given or (labelled and not given):
        return Rejected("incomplete instance", instruction)
    return {
        "instruction": instruction,
        "input": given,
        "output": output,
        "source": SOURCE,
        "is_classification": labelled,
    }
