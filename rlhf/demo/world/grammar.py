"""A hand-written grammar: things, what people say about them, and answers in four registers, with Korean particles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import yaml

SOURCE = Path(__file__).with_name("korean.yaml")
REGISTERS = ("warm", "polite", "casual", "rude")
FRAME = 0.35  # chance of an opener, and of a closer
# after a final consonant, otherwise; 으로 also turns to 로 after ㄹ
PARTICLES = {
    "를": ("을", "를"), "가": ("이", "가"), "는": ("은", "는"), "와": ("과", "와"), "로": ("으로", "로"),
    "나": ("이나", "나"), "라": ("이라", "라"),
}  # fmt: skip
FIRST_SYLLABLE, LAST_SYLLABLE, FINALS, RIEUL = 0xAC00, 0xD7A3, 28, 8
SLOT = re.compile(r"\{(\w+)\}")
ENDING = re.compile(SLOT.pattern + r"(\w*)")  # a particle, and letters after it as in `{라}면`


def with_particle(word: str, particle: str) -> str:
    """The word and the form of a particle that its last syllable asks for; "x" is the word alone."""
    if particle == "x":
        return word
    code = ord(word[-1])
    assert FIRST_SYLLABLE <= code <= LAST_SYLLABLE, f"{word} does not end in Hangul"
    final = (code - FIRST_SYLLABLE) % FINALS
    closed, opened = PARTICLES.get(particle, (particle, particle))
    if particle == "로" and final == RIEUL:
        return word + opened
    return word + (closed if final else opened)


def filled(template: str, thing: str) -> str:
    """The template about a thing."""
    return SLOT.sub(lambda found: with_particle(thing, found[1]), template)


@dataclass(frozen=True, slots=True)
class Talk:
    """What people say about things of one kind to one purpose, and answers to all of it by register."""

    kind: str
    mood: str
    things: tuple[str, ...]
    prompts: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts and answers."""
        return (*self.prompts, *(text for texts in self.answers.values() for text in texts))


@dataclass(frozen=True, slots=True)
class World:
    """The whole grammar: openers and closers by mood and register; `shown` prompts with their English."""

    talks: tuple[Talk, ...]
    openers: dict[str, dict[str, list[str]]]
    closers: dict[str, dict[str, list[str]]]
    shown: dict[str, str]

    def answer(self, talk: Talk, thing: str, register: str, generator: Random) -> str:
        """An answer about a thing, with an opener and a closer now and then."""
        parts = [filled(generator.choice(talk.answers[register]), thing)]
        if generator.random() < FRAME:
            parts.insert(0, generator.choice(self.openers[talk.mood][register]))
        if generator.random() < FRAME:
            parts.append(generator.choice(self.closers[talk.mood][register]))
        return " ".join(parts)

    def things(self) -> dict[str, str]:
        """Each thing and its kind."""
        return {thing: talk.kind for talk in self.talks for thing in talk.things}

    def frames(self, register: str) -> Iterator[str]:
        """Openers and closers of a register."""
        for moods in (self.openers, self.closers):
            yield from (text for registers in moods.values() for text in registers[register])

    def endings(self) -> frozenset[tuple[str, str]]:
        """Every (particle, letters after it) that follows a thing."""
        return frozenset(found for talk in self.talks for text in talk.templates for found in ENDING.findall(text))

    def whole_things(self) -> str:
        """A pattern of the thing at the start of a word that is a thing alone or with a particle."""
        things = sorted(self.things(), key=len, reverse=True)
        forms = {
            with_particle(thing, particle)[len(thing) :] + tail for thing in things for particle, tail in self.endings()
        }
        first = "".join(sorted({thing[0] for thing in things}))  # most words begin otherwise, and are done with at once
        return rf"\A(?=[{first}])(?:{'|'.join(things)})(?=(?:{'|'.join(sorted(forms))})\z)"

    def sentences(self) -> Iterator[str]:
        """Every prompt, answer, opener and closer that the grammar has."""
        for talk in self.talks:
            for template in talk.templates:
                yield from (filled(template, thing) for thing in talk.things)
        for register in REGISTERS:
            yield from self.frames(register)


@cache
def korean_world() -> World:
    """The grammar of korean.yaml."""
    read = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    talks = tuple(
        Talk(
            kind,
            says["mood"],
            tuple(content["things"]),
            tuple(says["prompts"]),
            {register: tuple(says[register]) for register in REGISTERS},
        )
        for kind, content in read["kinds"].items()
        for says in content["says"]
    )
    return World(talks, read["openers"], read["closers"], read["shown"])
