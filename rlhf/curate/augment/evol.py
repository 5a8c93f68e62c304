"""Evol-Instruct (arXiv:2304.12244): instructions made harder step by step, or new ones made in their likeness.

Each instruction meets one of five operations a generation: a constraint more, deeper, more concrete, more steps of
reasoning, or another instruction of the same field (breadth). An evolution is given up, and its instruction tried once
more later, when it asks the same as before, repeats the prompt's own words or another row, or cannot be answered.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhf.curate.augment.prompts import Form, texts, turns
from rlhf.curate.augment.settings import AugmentSettings
from rlhf.curate.augment.writer import Drop, Writer
from rlhf.curate.endpoint.messages import ChatMessage
from rlhf.data.korean import hangul_share

OPERATIONS = ("constraints", "deepening", "concretising", "reasoning", "breadth")
MOST_AT_ONCE = 32  # evolutions a round
MOST_FAILURES = 2  # of an instruction, after which it is left as it is
SHORT = 80  # characters; an answer below that apologises is no answer
PROMPT_WORDS = ("원래 말", "고친 말", "새로 쓴 말", "새로운 말")
SOURCE = "evol"

EVOLVED = Form("evolved", {"instruction": str})
IS_EQUAL = Form("comparison", {"is_equal": bool})


@dataclass(frozen=True, slots=True)
class _Evolving:
    instruction: str
    origin: str
    generation: int = 0
    num_failures: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An instruction, what is done to it, and what came of it so far."""

    parent: _Evolving
    operation: str
    evolved: str | Drop = ""
    output: str | Drop = ""

    @property
    def fault(self) -> Drop | None:
        return next((part for part in (self.evolved, self.output) if isinstance(part, Drop)), None)


def evolve(writer: Writer, seeds: Sequence[str], settings: AugmentSettings) -> Iterator[list[dict[str, Any] | Drop]]:
    """Rounds of rows {instruction, input, output, source, operation, generation, origin}; ends with the seeds.

    As many seeds are drawn as give `num` rows when each is evolved `generations` times, then more if it takes more.
    """
    order = random.Random(settings.seed).sample(list(seeds), len(seeds))
    share = math.ceil(settings.num / settings.generations)
    queue: deque[_Evolving] = deque()
    taken = {_plain(seed) for seed in seeds}
    missing = settings.num
    while missing > 0 and (queue or order):
        if not queue:
            queue.extend(_Evolving(seed, seed) for seed in order[:share])
            order = order[share:]
        parents = [queue.popleft() for _ in range(min(len(queue), missing, MOST_AT_ONCE))]
        attempts = _attempts(writer, parents, taken, settings)
        queue.extend(after for attempt in attempts if (after := _after(attempt, settings)) is not None)
        outcomes = [attempt.fault or _row(attempt) for attempt in attempts]
        missing -= sum(not isinstance(outcome, Drop) for outcome in outcomes)
        yield outcomes


def _attempts(
    writer: Writer, parents: Sequence[_Evolving], taken: set[str], settings: AugmentSettings
) -> list[_Attempt]:
    attempts = [_Attempt(parent, _operation(parent, settings.seed)) for parent in parents]
    answers = writer.write([_evolve_prompt(attempt) for attempt in attempts], [EVOLVED] * len(attempts))
    evolved = [answer if isinstance(answer, Drop) else _new(answer["instruction"], taken) for answer in answers]
    attempts = [replace(attempt, evolved=text) for attempt, text in zip(attempts, evolved, strict=True)]
    attempts = _without_equals(writer, attempts)
    return _answered(writer, attempts)


def _operation(parent: _Evolving, seed: int) -> str:
    draw = random.Random(f"{seed} {parent.origin} {parent.generation} {parent.num_failures}")
    return draw.choice(OPERATIONS)


def _evolve_prompt(attempt: _Attempt) -> tuple[ChatMessage, ...]:
    prompts, instruction = texts("evol"), attempt.parent.instruction
    if attempt.operation == "breadth":
        return turns(prompts["system"], prompts["breadth"], instruction=instruction)
    method = prompts["methods"][attempt.operation]
    return turns(prompts["system"], prompts["depth"], instruction=instruction, method=method)


def _new(evolved: str, taken: set[str]) -> str | Drop:
    """The evolved instruction, which is then taken; a Drop when it is none."""
    if not hangul_share(evolved):
        return Drop("not Korean", evolved)
    if any(words in evolved for words in PROMPT_WORDS):
        return Drop("repeats the prompt", evolved)
    if _plain(evolved) in taken:
        return Drop("repeats another", evolved)
    taken.add(_plain(evolved))
    return evolved


def _plain(text: str) -> str:
    return "".join(text.split())


def _without_equals(writer: Writer, attempts: list[_Attempt]) -> list[_Attempt]:
    """The attempts again; those that ask what their parent asks become Drops."""
    prompts = texts("evol")
    asked = [
        turns(prompts["system"], prompts["is_equal"], first=attempt.parent.instruction, second=attempt.evolved)
        for attempt in attempts
        if attempt.fault is None
    ]
    verdicts = iter(writer.judge(asked, IS_EQUAL))
    return [
        attempt if attempt.fault else replace(attempt, evolved=_kept(attempt, next(verdicts))) for attempt in attempts
    ]


def _kept(attempt: _Attempt, verdict: dict[str, Any] | Drop) -> str | Drop:
    if isinstance(verdict, Drop):
        return verdict
    return Drop("no gain", str(attempt.evolved)) if verdict["is_equal"] else attempt.evolved


def _answered(writer: Writer, attempts: list[_Attempt]) -> list[_Attempt]:
    prompts = texts("evol")
    asked = [
        turns(prompts["answer_system"], prompts["answer"], instruction=attempt.evolved)
        for attempt in attempts
        if attempt.fault is None
    ]
    replies = iter(writer.reply(asked))
    return [attempt if attempt.fault else replace(attempt, output=_answer(next(replies))) for attempt in attempts]


def _answer(reply: str | Drop) -> str | Drop:
    if isinstance(reply, Drop):
        return reply
    if "죄송" in reply and len(reply) < SHORT:
        return Drop("refused", reply)
    return reply if any(map(str.isalnum, reply)) else Drop("empty answer", reply)


def _after(attempt: _Attempt, settings: AugmentSettings) -> _Evolving | None:
    """What goes back into the queue: the evolved instruction, or its parent once more."""
    parent = attempt.parent
    if attempt.fault is not None:
        failed = replace(parent, num_failures=parent.num_failures + 1)
        return failed if failed.num_failures < MOST_FAILURES else None
    if parent.generation + 1 >= settings.generations:
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
