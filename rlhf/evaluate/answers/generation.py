"""Numbers on a set of generated answers, read off the text alone: register, rudeness, variety, endings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rlhf.data.korean import (
    contains_rude,
    distinct_n,
    hangul_share,
    is_polite,
    repeated_token_share,
    split_sentences,
)
from rlhf.errors import DataError


@dataclass(frozen=True, slots=True)
class GenerationMetrics:
    """What a model's answers look like. Shares run from 0 to 1.

    polite            share of all sentences, of all answers, that end politely
    rude              share of answers with a rude word
    distinct2         unique word pairs divided by all word pairs, over all answers
    distinct_answers  unique whole answers divided by answers; low means one answer to everything
    repeated          mean over answers of the share of words that equal one of the 8 before them
    eos               share of answers that the model ended itself
    length_chars      mean length of an answer in characters, outer whitespace left out
    hangul            share of the letters of all answers that are Hangul
    num_answers       how many answers these are of
    """

    polite: float
    rude: float
    distinct2: float
    distinct_answers: float
    repeated: float
    eos: float
    length_chars: float
    hangul: float
    num_answers: int

    def as_dict(self) -> dict[str, float | int]:
        """The fields by name, rounded to 4 digits after the point."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def measure_generations(answers: Sequence[str], finished: Sequence[bool]) -> GenerationMetrics:
    """Measures answers; `finished[i]` says whether answer i ended in EOS. DataError without any answer.

    An empty answer counts as one impolite sentence, so that silence does not raise the polite share.
    """
    assert len(answers) == len(finished), f"{len(answers)} answers, {len(finished)} finish flags"
    if not answers:
        raise DataError("no answers to measure", expected="at least one generated answer")
    texts = [answer.strip() for answer in answers]
    sentences = [sentence for text in texts for sentence in split_sentences(text) or [""]]
    num = len(texts)
    return GenerationMetrics(
        polite=sum(map(is_polite, sentences)) / len(sentences),
        rude=sum(map(contains_rude, texts)) / num,
        distinct2=distinct_n(texts, 2),
        distinct_answers=len(set(texts)) / num,
        repeated=sum(map(repeated_token_share, texts)) / num,
        eos=sum(map(bool, finished)) / num,
        length_chars=sum(map(len, texts)) / num,
        hangul=hangul_share("".join(texts)),
        num_answers=num,
    )
