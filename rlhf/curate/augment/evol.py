"""Evol-Instruct (arXiv:2304.12244): instructions made harder step by step, or new ones of the same kind.

Each generation applies one of five operations to an instruction: one more constraint, more depth, more concrete, more
reasoning steps, or another instruction of the same field (breadth). An evolution fails when it asks the same as
before, repeats words of the prompt or another row, or cannot be answered; its instruction is then tried once more.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.prompts import ReplySchema, Text, messages, prompt_texts
from rlhf.curate.augment.writer import Rejected, Writer
from rlhf.curate.endpoint.messages import ChatMessage
from rlhf.curate.row_texts import compact
from rlhf.data.korean import hangul_share

OPERATIONS = ("constraints", "deepening", "concretising", "reasoning", "breadth")
MOST_AT_ONCE = 32  # evolutions per round
MOST_FAILURES = 2  # of an instruction, after which it is given up
SHORT = 80  # characters; a shorter answer with an apology is a refusal
PROMPT_WORDS = ("원래 말", "고친 말", "새로 쓴 말", "새로운 말")
SOURCE = "evol"
PROMPTS = prompt_texts("evol")


class Evolved(ReplySchema):
    instruction: Text


class Comparison(ReplySchema):
    is_equal: bool


@dataclass(frozen=True, slots=True)
class _Evolving:
    instruction: str
    origin: str
    generation: int = 0
    num_failures: int = 0


@dataclass(slots=True)
class _Attempt:
    """An instruction, the operation applied to it, the results so far, and why it failed, if it did."""

    parent: _Evolving
    operation: str
    evolved: str = ""
    output: str = ""
    rejected: Rejected | None = None


def evolve(writer: Writer, seeds: Sequence[str], options: AugmentOptions) -> Iterator[list[dict[str, Any] | Rejected]]:
    """Rounds of rows {instruction, input, output, source, operation, generation, origin}, until the seeds run out.

    Draws as many seeds as give `num` rows when each is evolved `generations` times, and more seeds if that fails.
    """
    order = random.Random(options.seed).sample(list(seeds), len(seeds))
    share = math.ceil(options.num / options.generations)
    queue: deque[_Evolving] = deque()
    taken = {compact(seed) for seed in seeds}
    missing = options.num
    while missing > 0 and (queue or order):
        if not queue:
            queue.extend(_Evolving(seed, seed) for seed in order[:share])
            order = order[share:]
        parents = [queue.popleft() for _ in range(min(len(queue), missing, MOST_AT_ONCE))]
        attempts = _attempts(writer, parents, taken, options.seed)
        queue.extend(after for attempt in attempts if (after := _after(attempt, options.generations)) is not None)
        outcomes = [attempt.rejected or _row(attempt) for attempt in attempts]
        missing -= sum(not isinstance(outcome, Rejected) for outcome in outcomes)
        yield outcomes


def _attempts(writer: Writer, parents: Sequence[_Evolving], taken: set[str], seed: int) -> list[_Attempt]:
    """Evolves each instruction, rejects those that ask the same as before, and has the others answered."""
    attempts = [_Attempt(parent, _operation(parent, seed)) for parent in parents]
    replies = writer.write([_evolve_prompt(each) for each in attempts], repeat(Evolved))
    for attempt, evolved in _accepted(attempts, replies):
        attempt.evolved, attempt.rejected = evolved.instruction, _unusable(evolved.instruction, taken)
    left = [each for each in attempts if not each.rejected]
    asked = [
        messages(PROMPTS["system"], PROMPTS["is_equal"], first=each.parent.instruction, second=each.evolved)
        for each in left
    ]
    for attempt, comparison in _accepted(left, writer.judge(asked, Comparison)):
        attempt.rejected = Rejected("no gain", attempt.evolved) if comparison.is_equal else None
    left = [each for each in left if not each.rejected]
    asked = [messages(PROMPTS["answer_system"], PROMPTS["answer"], instruction=each.evolved) for each in left]
    for attempt, output in _accepted(left, writer.write(asked)):
        attempt.output, attempt.rejected = output, _unanswered(output)
    return attempts


def _accepted(attempts: Sequence[_Attempt], replies: Sequence[Any]) -> Iterator[tuple[_Attempt, Any]]:
    """The attempts with a usable reply, each with its reply; the others fail."""
    for attempt, reply in zip(attempts, replies, strict=True):
        if isinstance(reply, Rejected):
            attempt.rejected = reply
        else:
            yield attempt, reply


def _operation(parent: _Evolving, seed: int) -> str:
    draw = random.Random(f"{seed} {parent.origin} {parent.generation} {parent.num_failures}")
    return draw.choice(OPERATIONS)


def _evolve_prompt(attempt: _Attempt) -> tuple[ChatMessage, ...]:
    kind = "breadth" if attempt.operation == "breadth" else "depth"
    method = PROMPTS["methods"].get(attempt.operation, "")
    return messages(PROMPTS["system"], PROMPTS[kind], instruction=attempt.parent.instruction, method=method)


def _unusable(evolved: str, taken: set[str]) -> Rejected | None:
    """Why an evolved instruction cannot be used, if so; else it is added to `taken`."""
    if not hangul_share(evolved):
        return Rejected("not Korean", evolved)
    if any(words in evolved for words in PROMPT_WORDS):
        return Rejected("repeats the prompt", evolved)
    if compact(evolved) in taken:
        return Rejected("repeats another", evolved)
    taken.add(compact(evolved))
    return None


def _unanswered(reply: str) -> Rejected | None:
    if "죄송" in reply and len(reply) < SHORT:
        return Rejected("refused", reply)
    return None if any(map(str.isalnum, reply)) else Rejected("empty answer", reply)


def _after(attempt: _Attempt, generations: int) -> _Evolving | None:
    """What returns to the queue: the evolved instruction, or its parent for another try."""
    parent = attempt.parent
    if attempt.rejected is not None:
        failed = replace(parent, num_failures=parent.num_failures + 1)
        return failed if failed.num_failures < MOST_FAILURES else None
    if parent.generation + 1 >= generations:
        return None
    return _Evolving(attempt.evolved, parent.origin, parent.generation + 1)


def _row(attempt: _Attempt) -> dict[str, Any]:
    return {
        "instruction": attempt.evolved,
        "input": "",
        "output": attempt.output,
        "source": SOURCE,
        "operation": attempt.operation,
        "generation": attempt.parent.generation + 1,
        "origin": attempt.parent.origin,
    }
