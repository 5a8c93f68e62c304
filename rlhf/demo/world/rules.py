"""Rules that tell what an answer is like, from the grammar alone. Nothing that is trained sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from rlhf.demo.world.grammar import REGISTERS, SLOT, World, korean_world, with_particle
from rlhf.demo.world.rows import Question, answers_question, questions

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what is left of a syllable whose bytes were torn apart


def words_of(text: str) -> list[str]:
    """What stands between spaces, without punctuation."""
    return [word for word in (re.sub(r"[^\w]", "", part) for part in text.split()) if word]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the grammar knows: words, prompts and what each is about, endings of a thing, lines by register.

    endings: (particle, letters after it), as in `{라}면`.
    """

    words: frozenset[str]
    asked: dict[str, Question]
    endings: frozenset[tuple[str, str]]
    lines: dict[str, re.Pattern[str]]

    def known_words(self, text: str) -> tuple[int, int]:
        """How many words of an answer are words of the world, and how many it has; silence is one unknown word."""
        words = words_of(text)
        return sum(word in self.words for word in words), len(words) or 1

    def on_topic(self, prompt: str, text: str) -> bool:
        """Whether an answer names what the prompt is about, alone or with a particle in the form it asks for."""
        thing = self.asked[prompt].thing
        return not {with_particle(thing, particle) + tail for particle, tail in self.endings}.isdisjoint(words_of(text))

    def answers(self, prompt: str, text: str) -> bool:
        """Whether an answer says something that the grammar has for this very prompt, in any register."""
        return answers_question(self.asked[prompt], text)

    def registers(self, text: str) -> set[str]:
        """Registers of which an answer has a line."""
        return {register for register, lines in self.lines.items() if lines.search(text)}


@cache
def korean_rules() -> Rules:
    """The rules of the Korean grammar."""
    world = korean_world()
    asked = {each.text: each for held_out in (False, True) for each in questions(world, held_out=held_out)}
    return Rules(
        frozenset(word for sentence in world.sentences() for word in words_of(sentence)),
        asked,
        world.endings(),
        {register: _lines(world, register) for register in REGISTERS},
    )


def _lines(world: World, register: str) -> re.Pattern[str]:
    """Any line of a register, about any thing."""
    texts: Iterable[str] = {text for talk in world.talks for text in talk.answers[register]} | {*world.frames(register)}
    forms = (SLOT.sub(r"\\w+", re.escape(text).replace(r"\{", "{").replace(r"\}", "}")) for text in sorted(texts))
    return re.compile(rf"(?<!\S)(?:{'|'.join(forms)})(?!\S)")
