"""Answers that refuse, and answers in which an assistant talks about itself, by their phrases in Korean and English."""

from __future__ import annotations

import re
import unicodedata

HEAD = 160  # characters: a refusal comes first; further on, the same words may be quoted or advised

_HELP = r"도와|도움|돕|제공|답변|답해|대답|생성|작성|응답|응할|응해|요청|따를|수행|처리|알려|만들어|지원|참여|다룰|말씀"
_CANNOT = r"수\s?없|수가\s?없|어렵|어려울|곤란|불가|못\s?[해하합드]|않[을겠습]"
_KOREAN_REFUSALS = (
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
_ENGLISH_REFUSALS = (
    rf"\bI(?:'m| am) (?:so |very |really )?sorry,? (?:but )?(?:I|that|this)\b[^.!?]{{0,40}}\b{_UNABLE}",
    rf"^(?:sorry,? (?:but )?)?I (?:am |'m )?{_UNABLE}\b[^.!?]{{0,30}}\b{_SERVE}",
    r"^I(?:'m| am) (?:unable|not able) to\b",
    rf"\bas an? (?:AI|large language model|language model)\b[^.!?]{{0,80}}\b(?:{_UNABLE}|don't)",
)
_REFUSAL = re.compile("|".join((*_KOREAN_REFUSALS, *_ENGLISH_REFUSALS)), re.IGNORECASE)

_AI = r"(?:AI|에이아이|인공\s?지능|(?:대규모\s?)?언어\s?모델|챗봇|ChatGPT|챗\s?GPT|GPT-?\d?)"
_I = r"(?:저는|전|나는|난|제가|내가)"
_KOREAN_BOILERPLATE = (
    # 저는 AI 언어 모델이라, 저는 OpenAI에서 개발한 인공지능입니다, 제가 챗봇이기 때문에
    rf"{_I}\s[^.!?\n]{{0,30}}{_AI}[^.!?\n]{{0,15}}(?:이라|라서|이므로|이며|로서|로,|이기\s?때문|입니다|이에요|예요|이다|이야|일\s?뿐)",
    # 인공지능으로서 저는, 언어 모델인 저는
    rf"(?:^|[.!?\n\s]){_AI}\s?(?:비서|어시스턴트|프로그램|모델)?(?:로서|으로서|인)\s?(?:저|나)(?:는|도|의)",
    rf"^{_AI}\s?(?:비서|어시스턴트|프로그램|모델)?(?:로서|으로서|이라서|이기\s?때문에)",
    r"(?:제|저의|내)\s(?:지식|학습\s?데이터|정보)[은는][^.!?\n]{0,20}\d{4}년[^.!?\n]{0,20}까지",
    r"(?:실시간|최신)\s?(?:정보|데이터|뉴스)[^.!?\n]{0,20}(?:접근|제공|확인|검색)[^.!?\n]{0,6}(?:수\s?없|못\s?[하해합])",
    r"(?:저는|전)\s?(?:감정|육체|몸|개인적인\s(?:경험|의견|감정|취향))[^.!?\n]{0,15}(?:없|가질\s?수\s?없|느끼지\s?못)",
)
_ENGLISH_BOILERPLATE = (
    r"\bas an? (?:AI|artificial intelligence|large language model|language model)\b",
    r"\bI(?:'m| am) (?:just |only )?an? (?:AI|artificial intelligence|large language model|language model|chatbot)\b",
    r"\bmy (?:knowledge|training)(?: data)? (?:cut-?off|(?:only )?(?:goes|extends) (?:up )?(?:to|until))\b",
    r"\bI (?:do not|don't) have (?:personal (?:experiences?|opinions?|feelings?)|access to real-?time)\b",
)
_BOILERPLATE = re.compile("|".join((*_KOREAN_BOILERPLATE, *_ENGLISH_BOILERPLATE)), re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether an answer refuses, by its first `HEAD` characters.

    A cheap heuristic: an apology counts only together with words for not being able to help. JSON and filled-in
    forms, which start with a bracket, are never refusals, whatever they quote.
    """
    head = unicodedata.normalize("NFC", text).replace("’", "'").strip(" \t\r\n\"'*")[:HEAD]
    return not head.startswith(("{", "[")) and _REFUSAL.search(head) is not None


def is_boilerplate(text: str) -> bool:
    """Whether an answer refuses, or talks about the model: "저는 AI 언어 모델이라…", knowledge cut-offs."""
    plain = unicodedata.normalize("NFC", text).replace("’", "'").strip()
    return is_refusal(plain) or _BOILERPLATE.search(plain) is not None
