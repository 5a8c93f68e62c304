"""The verdict of a comparison in words, in Korean and English."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf.evaluate.control_group import MIN_PROMPTS
from rlhf.html.intervals import figure_text
from rlhf.html.words import Words, joined, same

TOO_MANY = 20_000  # prompts; more than anybody will sample
BY = {
    "judge": Words("심사 모델", "the judge"),
    "reward": Words("보상 모델", "the reward model"),
    "people": Words("사람", "people"),
}
RATE = Words(
    "프롬프트 {count:,}개에서 승률 {figures}, 무승부는 0.5승",
    "it wins {figures} of {count:,} prompts, a tie counting half",
)
OUTCOMES = {
    "better": Words(
        "{by} 기준으로 {second} 쪽이 {first}보다 낫습니다({rate}).", "By {by}, {second} is better than {first}: {rate}."
    ),
    "worse": Words(
        "{by} 기준으로 {second} 쪽이 {first}보다 못합니다({rate}).", "By {by}, {second} is worse than {first}: {rate}."
    ),
    "unknown": Words(
        "{by} 기준으로는 {second}와(과) {first}의 우열을 가릴 수 없습니다({rate}). {more}",
        "By {by}, too few prompts to tell {second} from {first}: {rate}. {more}",
    ),
}
EXACTLY_EVEN = Words(
    "승률이 정확히 반반이라, 프롬프트를 늘려도 이 수치만으로는 가려지지 않습니다.",
    "They are exactly even: more prompts at this rate would not separate them.",
)
OUT_OF_REACH = Words(
    "이렇게 작은 차이를 확인하려면 프롬프트가 {:,}개 넘게 필요합니다.",
    "A difference this small takes more than {:,} prompts to detect.",
).format(TOO_MANY)
CLOSE_CALL = Words(
    "이만한 차이라면 프롬프트 {:,}개쯤이면 드러나는 정도라 아슬아슬합니다. 조금 더 물어보세요.",
    "A difference of this size takes about {:,} prompts to detect: a close call, sample more.",
)
MORE_NEEDED = Words(
    "이만한 차이를 확인하려면 프롬프트가 {:,}개쯤 필요합니다(검정력 80 %).",
    "About {:,} prompts would detect a difference of this size (80 % power).",
)
TEXT_ALONE = Words(
    "심사 모델, 보상 모델, 사람의 비교가 없어 우열은 말할 수 없습니다. 프롬프트 {count:,}개의 답변에서 {second}와(과) "
    "{first}의 글이 뚜렷이 다른 점: {listed}.",
    "Without a judge, a reward model or people, better or worse cannot be said. Measures of the text that differ "
    "between {second} and {first} on {count:,} prompts: {listed}.",
)


def verdict_words(section: dict[str, Any], names: tuple[str, str]) -> Words:
    """Better, worse, or too few prompts to tell and how many it takes."""
    count = section["num_prompts"]
    return OUTCOMES[section["outcome"]].format(
        by=joined((BY[section["kind"]], same(section["name"]))),
        first=names[0],
        second=names[1],
        rate=RATE.format(count=count, figures=figure_text(section["win_rate"], ".1%")),
        more=_prompts_to_detect(section["prompts_for_80_percent_power"], count),
    )


def _prompts_to_detect(needed: int | None, count: int) -> Words:
    if needed is None:
        return EXACTLY_EVEN
    wanted = max(needed, MIN_PROMPTS)
    if wanted > TOO_MANY:
        return OUT_OF_REACH
    return (CLOSE_CALL if wanted <= count else MORE_NEEDED).format(wanted)


def text_words(differing: Sequence[Words], names: tuple[str, str], count: int) -> Words:
    """The verdict without a judge, a reward model or people; `differing` names the measures in which the two differ."""
    listed = joined(differing, ", ") if differing else Words("없음", "none")
    return TEXT_ALONE.format(count=count, first=names[0], second=names[1], listed=listed)
