"""Which answers decline."""

from __future__ import annotations

import pytest

from rlhf.curate.refusals import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "죄송하지만 그 요청은 도와드릴 수 없습니다.",
        "죄송합니다만, 해당 내용에 대해서는 답변을 드리기 어렵습니다.",
        "저는 인공지능 언어 모델이라 그런 내용은 작성할 수 없어요.",
        "AI 언어 모델로서 개인 정보를 제공할 수 없습니다.",
        "그런 요청에는 응할 수 없습니다.",
        "미안해요, 그건 제가 알려 드릴 수 없는 내용이에요.",
        "도와드릴 수 없어요.",
        "알려 드릴 수 없습니다.",
        "죄송합니다. 해당 요청은 처리할 수 없습니다.",
        "그런 글은 쓰지 않을게요.",
        "비하하는 발언은 받아들일 수 없습니다.",
        "그건 안 돼요. 누군가 다칠 수 있어요.",
        "정중히 거절하겠습니다.",
        "싫어. 그런 말은 안 할 거야.",
        "그 마음은 이해해요. 하지만 주소를 찾는 일은 도와드릴 수 없어요.",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with this request.",
        "Sorry, but I can't assist with that.",
        "I cannot provide instructions for that.",
        "I'm unable to help with this.",
        "As an AI language model, I cannot have opinions.",
    ],
)
def test_a_refusal_is_one(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "네, 기꺼이 도와드릴게요!",
        "죄송하다는 말을 먼저 건네 보시면 어떨까요? 친구도 마음을 열 거예요.",
        "많이 속상하셨겠어요. 제가 어떻게 도와드리면 좋을까요?",
        "늦어서 죄송해요! 부탁하신 편지를 써 봤어요.",
        "인공지능은 사람의 말을 배워서 답을 만드는 기술이에요.",
        "그 요청은 고객 센터에 하시면 바로 처리해 줄 거예요.",
        "[검토]\n무해함: 답변 1은 죄송하지만 도와드릴 수 없다고만 합니다.",
        '{"instruction": "죄송하지만 도와드릴 수 없다는 말을 부드럽게 고쳐 줘."}',
        "이렇게 써 보세요. “죄송하지만 참석할 수 없습니다.”",
        "펭귄은 날 수 없어요.",
        "해당 쿠폰은 다른 할인과 함께 사용할 수 없습니다.",
        "노인을 민폐라고 보는 건 옳지 않아요.",
        "저는 그렇게 생각하지 않아요.",
        "말하기 싫으면 그냥 밥이나 먹고 와.",
        "안 해도 뭐라고 안 해.",
        "많이 힘들겠어요.",
        "새로운 방법을 제안해 드릴게요.",
        "I can help you with that.",
        "I'm sorry to hear that you had a hard day.",
        "먼저 재료를 손질하세요. " * 12 + "죄송하지만 그 이상은 도와드릴 수 없습니다.",
    ],
)
def test_another_answer_is_not(text: str) -> None:
    assert not is_refusal(text)
