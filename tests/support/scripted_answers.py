"""What the service of `openai_server` answers: taken from the request alone, by hashes.

Forms of a judge are filled in, requests for JSON get the keys they ask for, and everything else is answered with a
friendly Korean sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

SITUATIONS = (
    "제주도 바닷가에서 비를 만났는데",
    "동네 도서관 열람실에 매일 가다 보니",
    "회사 탕비실에서 동료와 마주쳤을 때",
    "시골 할머니 댁에 다녀온 뒤로",
    "새벽 수산시장을 처음 구경하면서",
    "지하철 막차를 놓친 친구가 있어.",
    "대학 동아리방을 새로 꾸미려고 해.",
    "옥상 텃밭에 상추를 심었거든.",
    "주말마다 혼자 캠핑을 떠나는 사람이야.",
    "오래된 극장이 곧 문을 닫는대.",
    "김장을 마치고 허리가 뻐근할 때",
    "중고 자전거 한 대를 물려받았어.",
    "첫 월급으로 적금을 들까 하는데",
    "면접을 하루 앞두고 잠이 안 와.",
    "이삿짐을 절반쯤 싸다 지쳐서",
    "외국인 친구에게 한글을 가르치다가",
)
ASKS = (
    "부모님께 드릴 짧은 안부 문자를 써 줘.",
    "초보자가 놓치기 쉬운 점 세 가지만 꼽아 볼래?",
    "어떤 순서로 준비하면 좋은지 차근차근 설명해 줘.",
    "장단점을 표로 견주어 정리해 주세요.",
    "이 기분을 네 줄짜리 시로 옮겨 보면 어떨까요?",
    "다음 후기가 칭찬인지 불만인지 골라 줘.",
    "예산 오만 원으로 무엇을 할 수 있을지 궁금해요.",
    "두 사람이 다투지 않고 화해하는 대화를 지어 줘.",
    "왜 그런 일이 생기는지 과학 원리로 알려 줄래요?",
    "발표 첫머리에 쓸 재미있는 이야기를 추천해 주세요.",
    "아래 글에서 맞춤법이 틀린 곳을 바로잡아 줘.",
    "건강을 해치지 않는 습관을 하나만 정해 줘.",
    "아이 눈높이에 맞추어 다시 풀어 써 주세요.",
    "마음을 다잡을 만한 한마디가 필요해.",
)
FRIENDLY = (
    "말씀해 주셔서 고마워요! 천천히 하나씩 해 보시면 분명 잘하실 거예요.",
    "정말 좋은 생각이에요. 저라면 먼저 가까운 곳부터 둘러볼 것 같아요.",
    "많이 고민되셨겠어요. 오늘은 푹 쉬시고 내일 다시 이야기해 봐요!",
    "와, 듣기만 해도 설레네요! 다녀오시면 어땠는지 꼭 들려주세요.",
    "그럴 때는 따뜻한 차 한 잔이 도움이 되더라고요. 무리하지는 마세요.",
)
LABELS = ("긍정", "부정", "중립")


def digest(text: str) -> int:
    """A number that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def scripted(body: dict[str, Any]) -> str:
    """The answer to a request, without faults."""
    asked = body["messages"][-1]["content"]
    if re.search(r"[=:] N\b", asked):
        return filled_form(body)
    variant = json.dumps([body["messages"], body.get("seed")], ensure_ascii=False)
    if keys := wanted_keys(body):
        return json.dumps({key: value_of(key, variant) for key in keys}, ensure_ascii=False)
    return FRIENDLY[digest(variant) % len(FRIENDLY)]


def wanted_keys(body: dict[str, Any]) -> list[str]:
    """Keys of the JSON schema that is asked for, or of the last JSON object shown in the prompt."""
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    if schema:
        return list(schema["properties"])
    shown = re.findall(r"\{[^{}]*\}(?:\]\})?", body["messages"][-1]["content"])
    return re.findall(r'"(\w+)":', shown[-1]) if shown else []


def value_of(key: str, variant: str) -> Any:
    """What stands under a key of an answer in JSON."""
    number = digest(key + variant)
    friendly = f"{FRIENDLY[number % len(FRIENDLY)]} {FRIENDLY[number // 7 % len(FRIENDLY)]}"
    note = f"{new_instruction(variant + 'input')} 이 글은 예시로 쓴 메모입니다."
    values = {
        "instructions": [new_instruction(f"{variant}{index}") for index in range(6)],
        "instruction": new_instruction(variant),
        "is_classification": number % 4 == 0,
        "is_equal": number % 5 == 0,
        "label": LABELS[number % len(LABELS)],
        "input": "" if number % 3 == 0 else note,
    }
    return values.get(key, friendly)


def new_instruction(variant: str) -> str:
    """An instruction in Korean."""
    number = digest(variant)
    return f"{SITUATIONS[number % len(SITUATIONS)]} {ASKS[number // 101 % len(ASKS)]}"


def filled_form(body: dict[str, Any]) -> str:
    """The form at the end of a judge's prompt with a score of 1 to 5 in each place marked N."""
    text = "\n".join(message["content"] for message in body["messages"] if message["role"] == "user")
    answers = dict(re.findall(r"<답변 ?(\d+)>\n?(.*?)\n?</답변 ?\d+>", text, re.DOTALL))
    lines = text[text.rfind("\n\n[") if "\n\n[" in text else 0 :].strip().splitlines()
    form = []
    for line in lines:
        criterion = line.split(":", 1)[0].strip()
        filled = re.sub(
            r"답변 ?(\d+) = N",
            lambda found, name=criterion: f"답변 {found[1]} = {score(name, answers.get(found[1], text))}",
            line,
        )
        filled = re.sub(r": N\b", f": {score(criterion, text)}", filled)
        form.append(re.sub(r"\(두 답변[^)]*\)", "두 답변 모두 질문에 맞지만 말투가 조금 다릅니다.", filled))
    start = max((index for index, line in enumerate(lines) if line.startswith("[검토]")), default=0)
    return "\n".join(form[start:])


def score(criterion: str, answer: str) -> int:
    """1 to 5, by a hash."""
    return 1 + digest(criterion + answer) % 5


def logprobs_of(text: str, top: int) -> dict[str, Any]:
    """Log-probabilities of an answer cut into digits, spaces and words; a digit's alternatives are its neighbours."""
    content = []
    for token in re.findall(r"\d|\s+|[^\d\s]+", text):
        likely = {token: 0.9}
        if token in "12345":
            likely = {str(digit): math.exp(-abs(digit - int(token))) for digit in range(1, 6)}
            likely = {digit: weight / sum(likely.values()) for digit, weight in likely.items()}
        alternatives = [
            {"token": other, "logprob": math.log(share), "bytes": None}
            for other, share in sorted(likely.items(), key=lambda item: -item[1])[:top]
        ]
        content.append(
            {"token": token, "logprob": math.log(likely[token]), "bytes": None, "top_logprobs": alternatives}
        )
    return {"content": content}
