"""Rules on Korean text that need no model: politeness, rude words, repetition, share of Hangul.

Every function is pure and cheap, because PPO measures each rollout with them. They are rules of thumb: good for
comparing many answers of two models, not for judging one answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from importlib.resources import files

import yaml

_ENDS, _CLOSING = "[.!?…。！？]", "[\"'”’」』)】》\\]]"
_SENTENCE = re.compile(
    rf".+?(?:{_ENDS}+{_CLOSING}+(?=\s|$)"  # closed by a quote or bracket: before a space only
    rf"|{_ENDS}+(?=\s|$|[가-힣“‘「『(])"
    rf"|(?<=[가-힣]){_ENDS}+(?=\d)|$)"  # "…니다.2. " but not "3.5"
)
_LIST_MARKER = re.compile(r"(?:\d{1,3}|[A-Za-z])\.")
_WORD = re.compile(r"[^\W_ㄱ-ㆎ]")

_LETTER_EMOTICON = re.compile(r"(?:[:;=xX][-']?[DPpOo3]+|[Tt][_.][Tt]|\^[oO0_.]*\^|[oO][_.][oO])[\W_ㄱ-ㆎ]*$")
_ASIDE = re.compile(r"(?<=\w)[^\w]*[(（\[][^()（）\[\]]*[)）\]][\W_ㄱ-ㆎ]*$")
_NOT_A_WORD = re.compile(r"[\W_ㄱ-ㆎ]+$")
_LAST_WORD = re.compile(r"[가-힣]+$")

# Nouns that end in 요. 저도요, 가수요 ("a singer"), 두 개요 ("two") are polite, so most nouns count only
# as a whole word; no polite ending can produce 필요 or 중요.
_YO_NOUNS = re.compile(
    "강요|개요|고요|긴요|도요|목요|민요|소요|수요|실수요|시간소요|요요|적요|주요|토요|화요"
    "|노동요|동요|(?:전기|무릎)?담요|(?:대중|인기)가요|(?:참치|치킨)마요|[가-힣]*(?:필요|중요)"
)
_COUNTED = re.compile(r"(?:한|두|세|네|몇|여러|다섯|여섯|일곱|여덟|아홉|열|\d+)\s*개요$")
_ONE_WORD_POLITE = frozenset({"네", "예", "넵", "넹", "옙", "네네", "넵넵", "아니오"})
_CASUAL_YO = re.compile(r"[세네해어아워와봐줘져에예돼려켜][용욤욥염]$|[세네해어워]여$")
_B_ENDING = re.compile(r"(.)(?:니[다당닷까깡]|니다만|시다|쇼)아*$")
_HANGUL = re.compile("[가-힣ㄱ-ㆎ\u1100-\u11ff]")
_B_FINAL = 17  # ㅂ, as the index of a final consonant in a Hangul syllable


def split_sentences(text: str) -> list[str]:
    """Sentences of `text`, cut after . ! ? … (with closing quotes) and at newlines.

    A point inside a number or after a list number ("1. ") does not cut. A piece without a word, such as ㅋㅋ
    or an emoji, belongs to the sentence before it.
    """
    sentences: list[str] = []
    for line in unicodedata.normalize("NFC", text).splitlines():
        marker = ""
        for piece in filter(None, map(str.strip, _SENTENCE.findall(line))):
            if not marker and _LIST_MARKER.fullmatch(piece):
                marker = piece
            else:
                _append(sentences, f"{marker} {piece}".strip())
                marker = ""
        if marker:
            _append(sentences, marker)
    return sentences


def _append(sentences: list[str], sentence: str) -> None:
    if sentences and not _WORD.search(sentence):
        sentences[-1] = f"{sentences[-1]} {sentence}"
    else:
        sentences.append(sentence)


def is_polite(sentence: str) -> bool:
    """Whether a sentence ends in a polite form (해요 or 합쇼 style), by its last word.

    Punctuation, emoji, ㅋㅋ ㅎㅎ ㅠㅠ, emoticons, closing quotes and an aside in brackets do not count.
    """
    text = _without_tail(unicodedata.normalize("NFC", sentence))
    match = _LAST_WORD.search(text)
    if match is None:
        return False
    word = match.group()
    if text in _ONE_WORD_POLITE or word in {"아뇨", "아니오"}:
        return True
    if word.rstrip("오").endswith("요"):
        noun = word.rstrip("오")
        return _YO_NOUNS.fullmatch(noun) is None or (noun == "개요" and _COUNTED.search(text) is not None)
    if word.endswith(("죠", "죵", "시오")) or _CASUAL_YO.search(word):
        return True
    ending = _B_ENDING.search(word)
    return ending is not None and (ord(ending.group(1)) - 0xAC00) % 28 == _B_FINAL


def _without_tail(sentence: str) -> str:
    before, text = None, sentence.strip()
    while text != before:
        before = text
        for pattern in (_LETTER_EMOTICON, _ASIDE, _NOT_A_WORD):
            text = pattern.sub("", text)
    return text


def polite_share(text: str) -> float:
    """Share of the sentences of `text` that are polite, 0 to 1; 0 where there is none."""
    sentences = split_sentences(text)
    return sum(map(is_polite, sentences)) / len(sentences) if sentences else 0.0


RUDE_STEMS: dict[str, list[str]] = yaml.safe_load((files("rlhf.data") / "rude_words.yaml").read_text(encoding="utf-8"))


def _pattern(stems: Iterable[str]) -> re.Pattern[str]:
    words = "|".join(re.escape(stem).replace(r"\ ", r"\s*") for stem in stems)
    return re.compile(rf"(?<![가-힣])(?:개|왕|핵|참)?(?:{words})")


_INSULT, _REPROACH = _pattern(RUDE_STEMS["insults"]), _pattern(RUDE_STEMS["reproaches"])
# What follows the stem when it is said of someone's feelings, of a condition, or denied:
# 답답하겠다, 짜증 나면, 짜증 날 땐, 멍청하지 않아, 찌질한 게 아니야; and 닥쳐올, which is another verb.
_HARMLESS = re.compile(
    r"[가-힣]{0,3}(?: ?[나났])?겠[다네어구]"
    r"|[가-힣]{0,2}(?: ?[나났])?[가-힣]?면"
    r"|[가-힣]{0,2} ?날? [때땐]"
    r"|[가-힣]{0,2}(?:지 않| [게건] 아니)"
    r"|[오온올왔]"
)


def rude_word_count(text: str) -> int:
    """How many rude words `text` holds. Those that can also comfort count in impolite sentences only."""
    count = 0
    for sentence in split_sentences(text):
        patterns = (_INSULT,) if is_polite(sentence) else (_INSULT, _REPROACH)
        ends = [match.end() for pattern in patterns for match in pattern.finditer(sentence)]
        count += sum(_HARMLESS.match(sentence, end) is None for end in ends)
    return count


def contains_rude(text: str) -> bool:
    return rude_word_count(text) > 0


def hangul_letters(text: str) -> tuple[int, int]:
    """How many letters of `text` are Hangul (syllables or jamo), and how many letters there are."""
    letters = "".join(filter(str.isalpha, text))
    return len(_HANGUL.findall(letters)), len(letters)


def hangul_share(text: str) -> float:
    """Share of the letters of `text` that are Hangul, 0 to 1; 0 without a letter."""
    hangul, letters = hangul_letters(text)
    return hangul / letters if letters else 0.0


def repeated_token_share(text: str) -> float:
    """Share of whitespace tokens that equal one of the 8 before them, 0 to 1; 0 for an empty text."""
    tokens = text.split()
    repeated = sum(token in tokens[max(0, index - 8) : index] for index, token in enumerate(tokens))
    return repeated / len(tokens) if tokens else 0.0
