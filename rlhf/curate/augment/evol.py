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
from typing import Any

from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.prompts import ReplySchema, messages, prompt_texts
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

EVOLVED = ReplySchema("evolved", {"instruction": str})
IS_EQUAL = ReplySchema("comparison", {"is_equal": bool})


@dataclass(frozen=True, slots=True)
class _Evolving:
    instruction: str
    origin: str
    generation: int = 0
    num_failures: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An instruction, the operation applied to it, and the results so far."""

    parent: _Evolving
    operation: str
    evolved: str | Rejected = ""
    output: str | Rejected = ""

    @property
    def rejected(self) -> Rejected | None:
        """Why the attempt failed, if it did."""
        return next((part for part in (self.evolved, self.output) if isinstance(part, Rejected)), None)


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
    replies = writer.write([_evolve_prompt(attempt) for attempt in attempts], [EVOLVED] * len(attempts))
    evolved = [reply if isinstance(reply, Rejected) else _new(reply["instruction"], taken) for reply in replies]
    attempts = [replace(attempt, evolved=text) for attempt, text in zip(attempts, evolved, strict=True)]
    verdicts = iter(writer.judge([_equality_prompt(each) for each in attempts if not each.rejected], IS_EQUAL))
    attempts = [each if each.rejected else replace(each, evolved=_gained(each, next(verdicts))) for each in attempts]
    outputs = iter(writer.reply([_answer_prompt(each) for each in attempts if not each.rejected]))
    return [each if each.rejected else replace(each, output=_answer(next(outputs))) for each in attempts]


def _operation(parent: _Evolving, seed: int) -> str:
    draw = random.Random(f"{seed} {parent.origin} {parent.generation} {parent.num_failures}")
    return draw.choice(OPERATIONS)


def _evolve_prompt(attempt: _Attempt) -> tuple[ChatMessage, ...]:
    prompts, instruction = prompt_texts("evol"), attempt.parent.instruction
    if attempt.operation == "breadth":
        return messages(prompts["system"], prompts["breadth"], instruction=instruction)
    method = prompts["methods"][attempt.operation]
    return messages(prompts["system"], prompts["depth"], instruction=instruction, method=method)


def _equality_prompt(attempt: _Attempt) -> tuple[ChatMessage, ...]:
    prompts = prompt_texts("evol")
    first, second = attempt.parent.instruction, attempt.evolved
    return messages(prompts["system"], prompts["is_equal"], first=first, second=second)


def _answer_prompt(attempt: _Attempt) -> tuple[ChatMessage, ...]:
    prompts = prompt_texts("evol")
    return messages(prompts["answer_system"], prompts["answer"], instruction=attempt.evolved)


def _new(evolved: str, taken: set[str]) -> str | Rejected:
    """The evolved instruction, added to `taken`; Rejected when it cannot be used."""
    if not hangul_share(evolved):
        return Rejected("not Korean", evolved)
    if any(words in evolved for words in PROMPT_WORDS):
        return Rejected("repeats the prompt", evolved)
    if compact(evolved) in taken:
        return Rejected("repeats another", evolved)
    taken.add(compact(evolved))
    return evolved


def _gained(attempt: _Attempt, verdict: dict[str, Any] | Rejected) -> str | Rejected:
    if isinstance(verdict, Rejected):
        return verdict
    return Rejected("no gain", str(attempt.evolved)) if verdict["is_equal"] else attempt.evolved


def _answer(reply: str | Rejected) -> str | Rejected:
    if isinstance(reply, Rejected):
        return reply
    if "죄송" in reply and len(reply) < SHORT:
        return Rejected("refused", reply)
    return reply if any(map(str.isalnum, reply)) else Rejected("empty answer", reply)


def _after(attempt: _Attempt, generations: int) -> _Evolving | None:
    """What returns to the queue: the evolved instruction, or its parent for another try."""
    parent = attempt.parent
    if attempt.rejected is not None:
        failed = replace(parent, num_failures=parent.num_failures + 1)
        return failed if failed.num_failures < MOST_FAILURES else None
    if parent.generation + 1 >= generations:
        return None
    return _Evolving(str(attempt.evolved), parent.origin, parent.generation + 1)


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
