"""Rows of the demo: prompts with an answer in each register, and rankings by topic and register."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from rlhf.demo.world.grammar import REGISTERS, Talk, World, filled

SEED = 17
SAME_THING = 0.5  # of the answers beside the question so many name the thing all the same
HELD_OUT = 8  # of the pairs of a thing and a talk one in so many is held out
# The answers to a prompt, best first: (rank, to the question, register), and the last of them, one or the other. Those
# of one register differ in what they are about alone, and a casual answer to the question beats a polite one beside it,
# so no answer alone has a rank. Kind answers to the question are equally good; kind ones beside it, and a rude one to
# it, are equally bad.
LADDER = (
    (1, True, "warm"),
    (1, True, "polite"),
    (3, True, "casual"),
    (4, False, "warm"),
    (4, False, "warm"),
    (4, False, "polite"),
    (4, True, "rude"),
)
LAST = ((4, False, "casual"), (8, False, "rude"))


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt: something said about a thing."""

    talk: Talk
    thing: str
    text: str


def questions(world: World, *, held_out: bool) -> list[Question]:
    """All prompts; those of some pairs of a thing and a talk are held out, so that they are new combinations."""
    found = []
    for number, talk in enumerate(world.talks):
        for place, thing in enumerate(talk.things):
            if ((place + 3 * number) % HELD_OUT == 0) == held_out:
                found += [Question(talk, thing, filled(template, thing)) for template in talk.prompts]
    return found


def answered(world: World, asked: Sequence[Question], generator: Random) -> list[dict[str, Any]]:
    """Each question with an answer in every register, the friendliest first."""
    return [
        _row(each, [world.answer(each.talk, each.thing, register, generator) for register in REGISTERS])
        for each in asked
    ]


def ranked(world: World, asked: Sequence[Question], generator: Random) -> list[dict[str, Any]]:
    """Each question with the answers of `LADDER` and one of `LAST`."""
    found = []
    for each in asked:
        ladder = (*LADDER, generator.choice(LAST))
        answers = [
            _answer(world, each, to_the_question, register, generator) for _, to_the_question, register in ladder
        ]
        found.append(_row(each, answers, [rank for rank, *_ in ladder]))
    return found


def data_sets(world: World) -> dict[str, list[dict[str, Any]]]:
    """The rows of every data file of the world, by the name it has behind `demo:`; the same at every call.

    The prompts that are shown come first of those held out.
    """
    generator = Random(SEED)
    found = {}
    for part, held_out in (("train", False), ("dev", True)):
        asked = questions(world, held_out=held_out)
        generator.shuffle(asked)
        asked.sort(key=lambda each: each.text not in world.shown)
        found[f"answers_{part}"] = answered(world, asked, generator)
        found[f"rankings_{part}"] = ranked(world, asked, generator)
    return found


def answers_question(asked: Question, text: str) -> bool:
    """Whether an answer has a line of the talk about the thing that was asked about, in any register."""
    return any(filled(line, asked.thing) in text for lines in asked.talk.answers.values() for line in lines)


def _answer(world: World, asked: Question, to_the_question: bool, register: str, generator: Random) -> str:
    """An answer, or one beside the question: what is said of another thing, or of this thing in another talk."""
    if to_the_question:
        return world.answer(asked.talk, asked.thing, register, generator)
    while True:
        talk = generator.choice(world.talks)
        thing = asked.thing if generator.random() < SAME_THING else generator.choice(talk.things)
        text = world.answer(talk, thing, register, generator)
        if not answers_question(asked, text):  # talks may share a line
            return text


def _row(asked: Question, answers: list[str], ranks: list[int] | None = None) -> dict[str, Any]:
    return {
        "prompt": asked.text,
        "responses": answers,
        "ranks": ranks or list(range(1, len(answers) + 1)),
        "topic": asked.talk.kind,
        "source": "demo",
    }
