from __future__ import annotations

import unicodedata

import pytest

from rlhf.data.korean import (
    hangul_letters,
    hangul_share,
    is_plain,
    is_polite,
    polite_sentences,
    polite_share,
    register,
    repeated_token_share,
    split_sentences,
    without_quotes,
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("안녕하세요. 반가워요!", ["안녕하세요.", "반가워요!"]),
        ("정말?! 네… 그래요...", ["정말?!", "네…", "그래요..."]),
        ("첫 줄\n둘째 줄", ["첫 줄", "둘째 줄"]),
        ('"가요." 그가 말했다.', ['"가요."', "그가 말했다."]),
        ('"가요."라고 했다.', ['"가요."라고 했다.']),
        ("(괜찮아요.) 정말요", ["(괜찮아요.)", "정말요"]),
        ("네.알겠습니다.", ["네.", "알겠습니다."]),  # models often leave the space out
        ("3.5점이에요. v2.0을 쓰세요", ["3.5점이에요.", "v2.0을 쓰세요"]),
        ("1. 물을 끓여요.\n2. 면을 넣어요.", ["1. 물을 끓여요.", "2. 면을 넣어요."]),
        ("물을 끓여요.2. 면을 넣어요.", ["물을 끓여요.", "2. 면을 넣어요."]),
        ("고마워요! ㅋㅋㅋ 😊", ["고마워요! ㅋㅋㅋ 😊"]),
        ("ㅋㅋㅋ", ["ㅋㅋㅋ"]),
        ("1.", ["1."]),
    ],
)
def test_split_sentences(text, sentences):
    assert split_sentences(text) == sentences


POLITE = """
    좋아요|그렇죠?|그랬지요.|합니다.|갑니까?|앉으십시오|오십쇼|쓰시오.|드세요!|그러네요~|갈까요?
    그렇군요…|바쁘거든요.|왔는데요|그럼요|저도요.|가수요.|두 개요.|3개요|하지 마요|집에 가요.|제가요?
    괜찮습니다만|해 봅시다.|네.|예|넵!|아뇨|그건 아니오|감사합니다 (웃음)|감사해요 ㅎㅎ|안 돼요ㅠㅠ
    반갑습니다^^|고마워요 :)|고마워요 :D|고마워요 T_T|"맞아요."|‘좋습니다.’|좋아요 👍🏻|좋아요오오
    고마워용|알겠습니당|안녕하세여|언제 오실까여?|먼저 갈게용|그래유|그쵸|필요해요|필요합니다|확인하세요(필수).
"""

IMPOLITE = """
    좋아.|그렇지?|한다.|아니다.|학교에 다니다|그러니까|왜 그랬니?|가자|쉬어라|그건 필요.|공부가 중요!
    불필요|수요|사업 개요|마음의 동요|도요|밤의 고요|시간 소요|따뜻한 담요|참치마요|대중가요|요요
    수요일|좋네|그 내용|안세영|시다|ㅋㅋㅋ|...|Thank you.|123|예의|"안녕하세요"라고 했다.|요즘|노래하니
"""


def listed(text):
    return [sentence.strip() for line in text.strip().splitlines() for sentence in line.split("|")]


@pytest.mark.parametrize("sentence", listed(POLITE))
def test_polite(sentence):
    assert is_polite(sentence)
    assert is_polite(unicodedata.normalize("NFD", sentence))


@pytest.mark.parametrize("sentence", ["", *listed(IMPOLITE)])
def test_not_polite(sentence):
    assert not is_polite(sentence)


def test_polite_share():
    assert polite_share("안녕하세요. 밥 먹었어? 저는 먹었어요! 잘 가.") == 0.5  # 2 of 4
    assert polite_share("") == 0.0


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("나는 밥을 먹었어.", True),
        ("비가 온다", True),
        ("같이 가자!", True),
        ("그냥 혼자 가.", True),
        ("우산 꼭 챙겨", True),
        ("뭐라고?", True),
        ("그렇다면 까닭은 무엇인가?", True),
        ("이제 그만 일어나", True),
        ("좋아요.", False),
        ("갑니다", False),
        ("서울", False),
        ("유명한 작가", False),
        ("파란 바다", False),
        ("감자", False),
        ("생일 축하 메시지", False),
    ],
)
def test_plain_speech(sentence, plain):
    assert is_plain(sentence) is plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("오늘은 쉬어요. 내일 뵙겠습니다.", "polite"),
        ("오늘은 쉬어. 내일 보자.", "plain"),
        ("오늘은 쉬어요. 내일 보자.", "mixed"),
        ("준비물: 우산", "none"),
        ("", "none"),
        ("엄마가 “빨리 와!”라고 하셨어요.", "polite"),
        ("점원이 ‘어서 오세요.’ 하고 인사했다.", "plain"),
        ("이렇게 말해 보세요. “미안해. 내가 잘못했어.”", "polite"),
        ("“지금 갈게요.”", "polite"),  # a text that is one quotation speaks for itself
    ],
)
def test_register(text, expected):
    assert register(text) == expected


def test_what_is_quoted_is_taken_out():
    assert without_quotes("그는 “가자.”라고 했다.") == "그는 ‘’라고 했다."
    assert without_quotes("‘네’") == "‘네’"
    assert without_quotes("it's fine, isn't it") == "it's fine, isn't it"
    assert polite_sentences("안녕하세요. “야, 이리 와.” 하고 불렀어요. 가자.") == (2, 3)
    assert polite_sentences("") == (0, 0)
    assert without_quotes("“" + "가" * 500 + "”") == "“" + "가" * 500 + "”"  # too long for somebody's words


def test_hangul_share():
    assert hangul_letters("한글 ab 12!") == (2, 4)
    assert hangul_share("한글 ab 12!") == 0.5  # 한 글 of 한 글 a b
    assert hangul_share("ㅋㅋ") == 1.0
    assert hangul_share(unicodedata.normalize("NFD", "한")) == 1.0
    assert hangul_share("漢字かな") == 0.0
    assert hangul_share("123 !?") == 0.0


def test_repeated_token_share():
    assert repeated_token_share("네 네 네 알겠어요") == 0.5  # the second and third of 4
    assert repeated_token_share("") == 0.0
    apart8 = "네 1 2 3 4 5 6 7 네"  # the first 네 is 8 back
    apart9 = "네 1 2 3 4 5 6 7 8 네"  # and 9 back
    assert repeated_token_share(apart8) == pytest.approx(1 / 9)
    assert repeated_token_share(apart9) == 0.0
