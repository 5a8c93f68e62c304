"""Answers that decline: the phrases language models refuse with, in Korean and English."""

from __future__ import annotations

import re
import unicodedata

HEAD = 160  # characters; a refusal says so at its start, and later on the words may be quoted or advised

_HELP = r"도와|도움|돕|제공|답변|답해|대답|생성|작성|응답|응할|응해|요청|따를|수행|처리|알려|만들어|지원|참여|다룰|말씀"
_CANNOT = r"수\s?없|수가\s?없|어렵|어려울|곤란|불가|못\s?[해하합드]|않[을겠습]"
_KOREAN = (
    rf"(?:죄송|미안|유감|안타깝)[^.!?]{{0,60}}(?:{_HELP})[^.!?]{{0,20}}(?:{_CANNOT})",
    rf"(?:저는|나는|전)\s?(?:단지\s)?(?:AI|인공지능|인공 지능|언어 ?모델|챗봇)[^!?]{{0,80}}(?:{_CANNOT})",
    rf"(?:AI|인공지능|인공 지능|언어 ?모델)(?:이기 때문에|이라서|이라|로서|으로서)[^!?]{{0,80}}(?:{_CANNOT})",
    rf"^(?:그|이|해당|그런|이런|이러한|그러한)\s(?:요청|질문|내용|주제)[^.!?]{{0,40}}(?:{_HELP})?[^.!?]{{0,20}}(?:{_CANNOT})",
)
_UNABLE = r"(?:can(?:'t|not| not)|unable|won't|will not|not able|must decline)"
_SERVE = (
    r"(?:help|assist|provide|fulfil|comply|create|generate|write|answer|engage|discuss|support|do that|continue"
    r"|participate)"
)
_ENGLISH = (
    rf"\bI(?:'m| am) (?:so |very |really )?sorry,? (?:but )?(?:I|that|this)\b[^.!?]{{0,40}}\b{_UNABLE}",
    rf"^(?:sorry,? (?:but )?)?I (?:am |'m )?{_UNABLE}\b[^.!?]{{0,30}}\b{_SERVE}",
    r"^I(?:'m| am) (?:unable|not able) to\b",
    rf"\bas an? (?:AI|large language model|language model)\b[^.!?]{{0,80}}\b(?:{_UNABLE}|don't)",
)
_REFUSAL = re.compile("|".join((*_KOREAN, *_ENGLISH)), re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether an answer declines, by its first `HEAD` characters.

    A rule of thumb that must be cheap: an apology counts only with the words for not being able to help. JSON and
    filled forms, which start with a bracket, do not decline, whatever they quote.
    """
    head = unicodedata.normalize("NFC", text).replace("’", "'").strip(" \t\r\n\"'*")[:HEAD]
    return not head.startswith(("{", "[")) and _REFUSAL.search(head) is not None
