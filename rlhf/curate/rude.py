"""Rude words in Korean: swear words in their spellings, insults, slurs, and reproaches in plain speech.

Rules of thumb for texts of any length, cheap enough for every rollout. `rlhf evaluate measures` prints how often they
are right, by kind of spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from rlhf.curate.hate import slurs_in
from rlhf.curate.spellings import shortened, unified
from rlhf.data.korean import is_polite, split_sentences

WORDS: dict[str, Any] = yaml.safe_load((files("rlhf.curate") / "rude.yaml").read_text(encoding="utf-8"))
Span = tuple[int, int]

_MARKS = r"(?:[^\w\s]|[_\dㅡㄴㅣ]){0,3}"  # what stands between two syllables to hide a word
_SPACES = r"(?:[^\w\s]|[_\dㅡ]|\s){0,4}"
_BETWEEN_INITIALS = r"(?:[^\w\s,/·'\"’]|[_\dㅡ]|\s){0,3}"  # ㄱ, ㄴ is a list of letters
NEARBY = 20  # characters before a word that may make it another one
_START = "(?<![가-힣])"
_GLUED = "(?:[아야이저그개어와왜뭐참왕핵]|야이|존나|진짜)?"  # what is often written together with the word that follows
_END = r"(?=$|\s|[^\w]|[ㄱ-ㅎㅏ-ㅣ])"
_STOP = re.compile(r"[.!?]\s|\n")
_ALONE = "[ㄱ-ㅊㅌㅍㅏ-ㅛㅡㅣ]"  # ㅋㅋ, ㅎㅎ, ㅠㅠ and ㅜㅜ may touch a word


@dataclass(frozen=True, slots=True)
class Spelled:
    """A swear word; where it stands; what before it, after it or in its sentence makes it another word."""

    leads: frozenset[str]  # characters with which it may begin: a text without any of them does not hold it
    pattern: re.Pattern[str]
    only: re.Pattern[str] | None
    before: re.Pattern[str] | None
    after: re.Pattern[str] | None
    sentence: re.Pattern[str] | None

    def spans(self, text: str) -> Iterator[Span]:
        for found in self.pattern.finditer(text):
            start, end = found.span()
            if self.before is not None and self.before.search(text, max(0, start - NEARBY), start):
                continue
            if self.only is not None and self.only.search(text, max(0, start - NEARBY), start) is None:
                continue
            if self.after is not None and self.after.match(text, end):
                continue
            if self.sentence is None or self.sentence.search(_around(text, start, end)) is None:
                yield start, end


def _around(text: str, start: int, end: int) -> str:
    """The sentence in which a span stands."""
    first = max((each.end() for each in _STOP.finditer(text, 0, start)), default=0)
    last = _STOP.search(text, end)
    return text[first : last.start() if last else None]


def _spelled(entry: Mapping[str, Any]) -> Spelled:
    def named(key: str, end: str = "") -> re.Pattern[str] | None:
        source = re.sub(r"\{(\w+)\}", lambda found: WORDS[found[1]], entry.get(key, ""))
        return re.compile(f"(?:{source}){end}") if source else None

    syllables = [f"(?:{each})" for each in entry["syllables"]]
    edge = f"(?<!{_ALONE})" if entry.get("jamo") else ""
    start = edge if entry.get("anywhere") else f"{_START}{edge}{_GLUED}"
    ends = f"|{entry['ends']}" if "ends" in entry else ""
    tight, loose = _MARKS.join(syllables), _SPACES.join(syllables)
    return Spelled(
        _leads(entry["syllables"][0]),
        re.compile(f"{start}{tight}|{_START}{edge}{loose}(?:{_END}{ends})"),
        named("only", "$"),
        named("before", "$"),
        named("after"),
        named("sentence"),
    )


def _leads(syllable: str) -> frozenset[str]:
    """The characters with which a first syllable begins: each of its alternatives starts with a letter or a class."""
    starts = [re.match(r"\[(\w+)\]|(\w)", each) for each in syllable.split("|")]
    assert all(starts), syllable
    return frozenset("".join(found[1] or found[2] for found in starts if found))


def _initials(entry: Mapping[str, Any]) -> Spelled:
    letters = _BETWEEN_INITIALS.join(f"(?:{each})" for each in entry["syllables"])
    tail = f"(?:{entry['tail']})?" if "tail" in entry else ""
    listed = rf"(?<!^{_ALONE} )(?<!\s{_ALONE} )", rf"(?! {_ALONE}(?:\s|$))"  # ㅂ ㅅ ㅈ is a list of letters
    source = f"(?<!{_ALONE}){listed[0]}{letters}{tail}(?!{_ALONE}){listed[1]}"
    return Spelled(_leads(entry["syllables"][0]), re.compile(source), None, None, None, None)


def _stems(name: str) -> re.Pattern[str]:
    """Stems at the start of a word; a space in one may be missing or wide."""
    words = "|".join(WORDS[name]).replace(" ", r"\s*")
    return re.compile(f"{_START}(?:개|왕|핵|참)?(?:{words})")


def _foreign() -> re.Pattern[str]:
    latin = "|".join(WORDS["latin"])
    return re.compile(rf"(?<![a-z])(?:{latin})(?![a-z])|{WORDS['english_in_hangul']}|{WORDS['fingers']}")


_SPELLED = [*map(_spelled, WORDS["spelled"]), *map(_initials, WORDS["initials"])]
_BY_LEAD: dict[str, list[Spelled]] = {}
for _word in _SPELLED:
    for _lead in _word.leads:
        _BY_LEAD.setdefault(_lead, []).append(_word)
_INSULT, _REPROACH, _FOREIGN = _stems("insults"), _stems("reproaches"), _foreign()
# What follows the stem when it is said of someone's feelings, of a condition, or denied:
# 답답하겠다, 짜증 나면, 짜증 날 땐, 멍청하지 않아, 찌질한 게 아니야.
_HARMLESS = re.compile(
    r"[가-힣]{0,3}(?: ?[나났])?겠[다네어구]"
    r"|[가-힣]{0,2}(?: ?[나났])?[가-힣]?면"
    r"|[가-힣]{0,2} ?[날할]? ?[때땐]"
    r"|[가-힣]{0,2}(?:지 않| [게건] 아니)|해 ?[하했]|[함움]을 느"
    r"|[가-힣]{0,2}다는 (?:말|소리|얘기|평)"
)


def _swearing(text: str) -> list[Span]:
    begun = {id(word): word for lead in _BY_LEAD.keys() & set(text) for word in _BY_LEAD[lead]}
    spans = [span for word in begun.values() for span in word.spans(text)]
    return spans + [each.span() for found in (_FOREIGN.finditer(text), slurs_in(text)) for each in found]


def contains_swearing(text: str) -> bool:
    """Whether `text` holds a swear word in any spelling, or a slur; insults and reproaches do not count."""
    return bool(_swearing(shortened(unified(text))))


def rude_word_count(text: str) -> int:
    """How many rude words `text` holds. Those that can also comfort count in impolite sentences only."""
    whole = shortened(unified(text))
    return len(_merged(_swearing(whole) + list(_stems_of(whole))))


def _stems_of(text: str) -> Iterator[Span]:
    """Where insults stand, and reproaches in impolite sentences."""
    start = 0
    for sentence in split_sentences(text):
        place = text.find(sentence, start)
        start = max(place, 0)
        reproaches = _REPROACH.search(sentence) is not None and not is_polite(sentence)
        for pattern in (_INSULT, _REPROACH) if reproaches else (_INSULT,):
            for found in pattern.finditer(sentence):
                if _HARMLESS.match(sentence, found.end()) is None:
                    yield start + found.start(), start + found.end()


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def contains_rude(text: str) -> bool:
    whole = shortened(unified(text))
    return bool(_swearing(whole)) or any(_stems_of(whole))
