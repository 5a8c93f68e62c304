"""Rude words: their spellings, and the words that only look like them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.curate import rude
from rlhf.curate.rude import WORDS, contains_rude, contains_swearing, rude_word_count


def listed(text: str) -> list[str]:
    return [each for line in text.strip().splitlines() for each in line.strip().split("|")]


SWEARING = """
    씨발|시발 뭐야|이런 씨팔|쓰벌|개시발|아씨발|씨발새끼|씹새야|쌍놈의 새끼|18년아
    ㅅㅂ|ㅅㅂㅋㅋ|ㅅㅂㅠㅠ|ㅆㅂㄹㅁ|ㅂㅅ아|ㅄ|ㅈㄴ 춥다|ㅈㄹ하네|ㅅㄲ들|ㄲㅈ|ㄷㅊ|ㅁㅊㄴ
    씨 발 놈|시.발|씨-발|ㅅ ㅂ 뭐냐|개 새 끼야|병 신 아|지 랄 하네|꺼 져
    시1발|씨@발|씨*발놈|시♡발|개^^새끼|병1신|새1끼야|존1나|씨8|시팔 놈
    ㅆㅣ발|시ㅂㅏㄹ|ㅅㅣㅂㅏㄹ|ㅂㅕㅇ신|조ㄴ나|개ㅅㅐ끼|시이이발|벼엉신|꺼어져
    Tlqkf|ssibal 진짜|qudtlsdk|C발|si발|시bal|개saekki|jonna 웃겨|byungsin|f**k|FUCKING
    개새끼|개쉐끼야|개색기|이 새끼가|새꺄|미친 새끼|미친놈아|미친년|병신같이|븅신|빙신아|등신아
    지랄하고 있네|염병하네|존나 좋다|졸라 웃겨|좆같아|좆됐다|조까|닥쳐라|닥치라고|썩 꺼져|뒤져라
    니애미|느금마|느그 어매|엠창|호로새끼|또라이냐|틀딱들|맘충|짱깨들|🖕|ㅗ
"""
INNOCENT = """
    시발점|이 사건의 시발은 작은 오해였다|시발역|다시 발견했다|혹시 발이 아파요?|몇 시 발 기차예요?|3시 발표
    도시 발전
    아저씨 발 조심하세요|솜씨 발휘|김 씨 발언|수박씨 발라 먹기|아스팔트|시바견|도시바|스발바르 제도
    개새우|무지개 새로 떴다|조개 새우|강아지 새끼|새끼손가락|새끼줄|새끼 고양이|고양이가 새끼를 낳았다
    어미 새와 새끼|소개시키는 자리
    미친 듯이 달렸다|영향을 미친 요인|기대에 못 미친 성적|존나단|생존나무|허리띠를 졸라매다|아이가 자꾸 졸라서 샀다
    병신년은 2016년이다|발병 신고|꽃병 신문지|닥치는 대로 읽었다|눈앞에 닥친 일|시험이 닥쳐왔다|불이 꺼져서 어둡다
    컴퓨터가 자꾸 꺼져요|땅이 꺼져라 한숨을 쉬었다|주머니를 뒤져 봐|남에게 뒤지지 않는다|호로록|등신대|고등 신입생
    18세 이상|18세기|1818년|십팔 년 전|십 년지기|꼭꼭 씹어라|꿈을 좇아 왔다|3조까지 모여라
    ㄱㅅㄱㅅ|ㅂㅂ|ㅅㄱ|ㅈㅅ|ㄴㄴ|ㄷㄷ|ㅋㅋㅋ|ㅠㅠ|ㄱ, ㄴ, ㅂ, ㅅ|Scunthorpe|shiitake|assess|class 9
"""


@pytest.mark.parametrize("text", listed(SWEARING))
def test_swearing_in_its_spellings(text: str) -> None:
    assert contains_swearing(text)
    assert contains_rude(unicodedata.normalize("NFD", text))


@pytest.mark.parametrize("text", listed(INNOCENT))
def test_what_only_looks_like_it(text: str) -> None:
    assert not contains_rude(text)


INSULTS = """
    썅년|인간쓰레기네|쓰레기 같은 놈|대가리는 장식이냐|아가리 좀 닫아|걸레 같은 년|이 얼간이들|찐따 새끼|썩을 놈
    죽여 버린다
    엿이나 먹어라|벌레만도 못한 놈|문디 가시나야|이노무 시키가|골 빈 놈|재수 없는 인간
"""
LIKE_INSULTS = """
    쓰레기통|쓰레기를 주웠다|멸치 대가리를 뗐다|주전자 주둥이|아가리가 넓은 항아리|걸레로 닦았다|갈보리 교회|찐따오
    도시락 싸가지고 가자|주디 갈런드|죽여주는 맛|배고파 죽겠다|호박엿|바보상자|바보 온달|한심하다는 말을 들었어요
"""


@pytest.mark.parametrize("text", listed(INSULTS))
def test_insults(text: str) -> None:
    assert contains_rude(text)


@pytest.mark.parametrize("text", listed(LIKE_INSULTS))
def test_what_is_no_insult(text: str) -> None:
    assert not contains_rude(text)


def test_an_insult_is_no_swearing() -> None:
    assert not contains_swearing("한심한 소리 하지 마.")
    assert not contains_swearing("")


def test_words_that_overlap_count_once() -> None:
    assert rude_word_count("개새끼") == 1  # not 새끼 once more
    assert rude_word_count("씨발 저 병신은 뭐냐") == 2


def test_a_lamp_goes_out_in_its_own_sentence_only() -> None:
    assert contains_rude("불이 나갔어. 너도 꺼져.")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("정말 멍청하네.", 1),
        ("멍청하시네요.", 1),  # an insult stays one in polite speech
        ("한심하게 징징대지 마, 바보야.", 3),
        ("재수없어. 짜증나!", 2),
        ("재수 없어. 짜증 나!", 2),
        ("개멍청한 소리", 1),
        ("그 입 닥쳐.", 1),
        ("언젠가 닥쳐올 일이야.", 0),
        ("많이 답답하셨겠어요. 짜증 나셨죠?", 0),  # comfort, in polite speech
        ("답답해 죽겠네.", 1),
        ("많이 답답하겠다.", 0),
        ("윗집이 시끄러우면 말해.", 0),
        ("짜증 날 땐 걸어.", 0),
        ("넌 찌질한 게 아니야.", 0),
        ("넌 멍청하지 않아.", 0),
        ("공짜증정 행사야.", 0),  # 짜증 inside another word
        ("오늘은 날씨가 좋네.", 0),
        ("", 0),
    ],
)
def test_rude_words(text: str, count: int) -> None:
    assert rude_word_count(text) == count
    assert contains_rude(text) == (count > 0)


def test_rude_words_are_nfc_and_named_once() -> None:
    stems = [*WORDS["insults"], *WORDS["reproaches"]]
    assert len(set(stems)) == len(stems)
    assert all(unicodedata.is_normalized("NFC", stem) and stem == stem.strip() for stem in stems)


@given(
    st.lists(st.sampled_from("씨시발팔새끼개지랄병신ㅅㅂㅈㄹ1 !가나다아야.미친놈닥쳐꺼져"), max_size=12).map("".join)
)
def test_a_text_without_a_words_first_letters_does_not_hold_it(text: str) -> None:
    by_all = [span for word in rude._SPELLED for span in word.spans(text)]
    begun = [span for word in rude._SPELLED if word.leads & set(text) for span in word.spans(text)]
    assert begun == by_all


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("숙제 하기 싫어. 귀찮아.", 1),  # a word that counts at the start of a sentence
        ("오늘은 바빠\n귀찮다", 1),
        ("이 쓰레기\n봉투 어디 있어?", 1),  # the next line does not make it another word
        ("설거지는 귀찮아요.", 0),
    ],
)
def test_words_are_looked_for_in_each_sentence(text: str, count: int) -> None:
    assert rude_word_count(text) == count
