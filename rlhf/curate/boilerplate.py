"""What assistants say of themselves instead of answering: refusals, "저는 AI 언어 모델이라…", knowledge cut-offs."""

from __future__ import annotations

import re
import unicodedata

from rlhf.curate.refusals import is_refusal

_AI = r"(?:AI|에이아이|인공\s?지능|(?:대규모\s?)?언어\s?모델|챗봇|ChatGPT|챗\s?GPT|GPT-?\d?)"
_I = r"(?:저는|전|나는|난|제가|내가)"
_KOREAN = (
    # 저는 AI 언어 모델이라, 저는 OpenAI에서 개발한 인공지능입니다, 제가 챗봇이기 때문에
    rf"{_I}\s[^.!?\n]{{0,30}}{_AI}[^.!?\n]{{0,15}}(?:이라|라서|이므로|이며|로서|로,|이기\s?때문|입니다|이에요|예요|이다|이야|일\s?뿐)",
    # 인공지능으로서 저는, 언어 모델인 저는
    rf"(?:^|[.!?\n\s]){_AI}\s?(?:비서|어시스턴트|프로그램|모델)?(?:로서|으로서|인)\s?(?:저|나)(?:는|도|의)",
    rf"^{_AI}\s?(?:비서|어시스턴트|프로그램|모델)?(?:로서|으로서|이라서|이기\s?때문에)",
    r"(?:제|저의|내)\s(?:지식|학습\s?데이터|정보)[은는][^.!?\n]{0,20}\d{4}년[^.!?\n]{0,20}까지",
    r"(?:실시간|최신)\s?(?:정보|데이터|뉴스)[^.!?\n]{0,20}(?:접근|제공|확인|검색)[^.!?\n]{0,6}(?:수\s?없|못\s?[하해합])",
    r"(?:저는|전)\s?(?:감정|육체|몸|개인적인\s(?:경험|의견|감정|취향))[^.!?\n]{0,15}(?:없|가질\s?수\s?없|느끼지\s?못)",
)
_ENGLISH = (
    r"\bas an? (?:AI|artificial intelligence|large language model|language model)\b",
    r"\bI(?:'m| am) (?:just |only )?an? (?:AI|artificial intelligence|large language model|language model|chatbot)\b",
    r"\bmy (?:knowledge|training)(?: data)? (?:cut-?off|(?:only )?(?:goes|extends) (?:up )?(?:to|until))\b",
    r"\bI (?:do not|don't) have (?:personal (?:experiences?|opinions?|feelings?)|access to real-?time)\b",
)
_BOILERPLATE = re.compile("|".join((*_KOREAN, *_ENGLISH)), re.IGNORECASE)


def is_boilerplate(text: str) -> bool:
    """Whether an answer declines, or talks about the model that gives it."""
    plain = unicodedata.normalize("NFC", text).replace("’", "'").strip()
    return is_refusal(plain) or _BOILERPLATE.search(plain) is not None
