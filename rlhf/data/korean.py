"""Rules on Korean text that need no model: sentences, register, repetition, share of Hangul.

Every function is pure and cheap, because PPO measures each rollout with them. They are rules of thumb: good for
comparing many answers of two models, not for judging one answer.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Register = Literal["polite", "plain", "mixed", "none"]

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
_CASUAL_YO = re.compile(
    r"[세네해어아워와봐줘져에예돼려켜게까래][용욤욥염욧]$|[세네해어워게까래데]여$|[해어아워래데]유$|[쥬슈]$|그쵸$|[슴씀함]다$"
)
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


_QUOTED = re.compile(
    r"“[^”\n]{0,400}”|‘[^’\n]{0,400}’|《[^》\n]{0,400}》|「[^」\n]{0,400}」|『[^』\n]{0,400}』"
    r"|(?<!\w)\"[^\"\n]{0,400}\"|(?<!\w)'[^'\n]{0,200}[가-힣][^'\n]{0,200}'"
)


def without_quotes(text: str) -> str:
    """`text` with what stands in quotation marks taken out, unless nothing else would be left."""
    bare = _QUOTED.sub("‘’", text)
    return bare if _WORD.search(bare) else text


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


# How a sentence in plain speech ends: 했어, 하네, 간다, 그래, 할까, 챙겨, 나눠, 그랬다고, 했음 ...; nouns do not count.
_PLAIN = re.compile(
    r"(?:다|어|아|해|야|여|지|네|까|자|라|래|걸|군|구나|니|냐|게|대|데|음|함|됨|봐|줘|돼|워|려|렴|거든|잖아)$"
    r"|(?:더군|구만|든가|든지|[겨쳐져펴혀녀벼켜셔껴꿔춰눠궈둬뤄빼]|[은인는던]가|[다라냐자][고구]|지 뭐|고말고)$"
    r"|(?:(?<!\w)어때|같애|[예이기]뻐|하려고|아님|안 ?가|(?:되|있|없|싶|럽|레|좋|았|었|겠|르|[가-힣]하)나|\w나\?)$"
    r"|(?:내 말이|뭐람)$|(?:불|몰|들|눌|둘|머물)러$|[할인한는] 듯$|(?:최고|처음|진짜|거|것|뿐|중)임$"
    r"|(?:힘|보|꺼|끝|이겨|해|알아|만들어)내$|(?:일어|나타|끝|만|화|신|생각|어긋)나$"
    r"|(?:놀러|사러|하러|보러|먹으러) ?[가와]$"
    r"|(?:^|\s)(?:(?:나|들어|돌아|따라|올라|내려)?가|(?:나|들어|돌아)?와|사|놔|마|써|꺼|떠|서|타|비켜|응|안녕|그치)$"
)
# Nouns whose last syllable reads like such an ending.
_PLAIN_NOUNS = re.compile(
    r"(?:바다|판다|수다|[의감과모피상액효]자|남자|여자|부자|[글숫한]자|투자|환자|기자|학자|[소생][비산]자|사용자|관리자|참가자|당사자|혼자"
    r"|나라|빨래|노래|미래|고래|모래|거래|카메라|드라마|오페라|[언단용인문]어|[영국외한본]국?어|동네|가게|무게|집게|[시기군세침상무막토확]대"
    r"|약대|의대|공대|빈대|[올이오피새동]해|머니|언니|바구니|[바돼반먼가편휴토복]지|강아지|아버지|페이지|메시지|이미지|소시지"
    r"|[분시]야|치아|[시리]아|피아|마음|처음|다음|얼음|웃음|걸음|믿음|소음|녹음|발음|화음|포함|사물함|명함"
    r"|[소그남자마해미처]녀|제안서|참여|수여|기여|급여|대여|평가|광고|창고|보고|[작국화]가인가|카페라|콜라|엄마|아마)$"
)


def is_plain(sentence: str) -> bool:
    """Whether a sentence ends in plain speech (반말 or 한다 style): a verbal ending, and not a polite one."""
    text = _NOT_A_WORD.sub("", unicodedata.normalize("NFC", sentence))
    return not is_polite(sentence) and _PLAIN.search(text) is not None and _PLAIN_NOUNS.search(text) is None


def register(text: str) -> Register:
    """How a text speaks to its reader, by the ends of its sentences; what it quotes is another's speech."""
    sentences = split_sentences(without_quotes(text))
    polite, plain = any(map(is_polite, sentences)), any(map(is_plain, sentences))
    return "mixed" if polite and plain else "polite" if polite else "plain" if plain else "none"


def polite_sentences(text: str) -> tuple[int, int]:
    """How many sentences of `text` are polite, and how many there are, without what it quotes."""
    sentences = split_sentences(without_quotes(text))
    return sum(map(is_polite, sentences)), len(sentences)


def polite_share(text: str) -> float:
    """Share of the sentences of `text` that are polite, 0 to 1; 0 where there is none."""
    polite, number = polite_sentences(text)
    return polite / number if number else 0.0


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
