"""A page in two languages: every sentence is in it twice, and a switch of plain CSS shows one of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from rlhf.config import stages
from rlhf.evaluate.figures import Cell


class Words(NamedTuple):
    """The same text in Korean and English."""

    ko: str
    en: str


STYLE = """
.language { position: absolute; opacity: 0; pointer-events: none; }
#in-korean:checked ~ * [lang=en], #in-english:checked ~ * [lang=ko] { display: none; }
.bar { position: sticky; top: 0; z-index: 1; background: #fff; border-bottom: 1px solid #e3e6ea; padding: .4rem 0;
  display: flex; gap: .4rem; align-items: center; justify-content: flex-end; }
.bar label { border: 1px solid #c3c9d1; border-radius: 1rem; padding: .15rem .8rem; font-size: .85rem;
  cursor: pointer; }
#in-korean:checked ~ .bar [for=in-korean], #in-english:checked ~ .bar [for=in-english] { background: #1d2430;
  color: #fff; border-color: #1d2430; }
#in-korean:focus-visible ~ .bar [for=in-korean], #in-english:focus-visible ~ .bar [for=in-english] {
  outline: 2px solid #2f5d8c; outline-offset: 2px; }
[lang=ko] { word-break: keep-all; overflow-wrap: anywhere; } h2, h3 { scroll-margin-top: 3.2rem; }
@media print { .bar { display: none; } }
"""
SWITCH = (
    '<input class="language" type="radio" name="language" id="in-korean" checked>'
    '<input class="language" type="radio" name="language" id="in-english">'
    '<div class="bar"><label for="in-korean">한국어</label><label for="in-english">English</label></div>'
)

STAGES = {name: Words(stage.korean_title, stage.title) for name, stage in stages.STAGES.items()}
STATUSES = {
    "finished": Words("완료", "finished"),
    "running": Words("실행 중", "running"),
    "preempted": Words("중단 요청으로 멈춤", "preempted"),
    "failed": Words("실패", "failed"),
    "killed": Words("강제 종료됨", "killed"),
    "queued": Words("대기 중", "queued"),
    "not started": Words("시작 전", "not started"),
}
PANELS = {
    "Reward": Words("보상", "학습 프롬프트와 평가 프롬프트(eval_reward)의 보상 점수입니다."),
    "Held-out reward model": Words("별도 보상 모델", "보상과 함께 올라야 합니다. 혼자 내려가면 보상 해킹입니다."),
    "Reward by source": Words("보상원별 점수", "가중치를 곱하기 전의 값입니다."),
    "Deviation of scores": Words("점수의 편차", "0이 되면 더 배울 것이 없습니다."),
    "KL to the reference": Words("기준 모델과의 KL", "응답 하나당 nats. 정책이 얼마나 멀어졌는지를 나타냅니다."),
    "KL coefficient": Words("KL 계수", "KL 벌점의 가중치입니다."),
    "By source of prompts: reward": Words("프롬프트 출처별 보상", "보상 점수입니다."),
    "By source of prompts: KL": Words("프롬프트 출처별 KL", "응답 하나당 nats."),
    "Loss": Words("손실", "1단계에서는 토큰당 nats입니다."),
    "Accuracy": Words("정확도", "순서를 맞힌 쌍의 비율입니다."),
    "Policy loss": Words("정책 손실", "0 근처에서 움직입니다. 높낮이 자체에는 큰 뜻이 없습니다."),
    "Value loss": Words("가치 손실", "보상 점수의 제곱입니다."),
    "Explained variance": Words("설명된 분산", "0보다 작으면 크리틱이 상수만도 못합니다."),
    "Clipped tokens": Words("잘린 토큰", "토큰의 비율. 0.3을 넘으면 갱신 폭이 너무 큽니다."),
    "Step of the policy": Words("정책의 보폭", "토큰당 nats. 한 반복 안에서 갱신 전후의 거리입니다."),
    "Largest ratio": Words("가장 큰 확률비", "한 토큰의 갱신 후 확률을 갱신 전 확률로 나눈 값입니다."),
    "Gradient norms": Words("그래디언트 크기", "자르기 전의 값입니다."),
    "Entropy": Words("엔트로피", "토큰당 nats."),
    "Length of answers": Words("답변 길이(토큰)", "EOS를 포함한 토큰 수입니다."),
    "Length in characters": Words("답변 길이(글자)", "답변의 평균 글자 수입니다."),
    "Score and length": Words("점수와 길이", "상관계수. 0에서 멀면 보상이 길이를 따라갑니다."),
    "Answers that end": Words("끝맺은 답변", "EOS로 끝난 비율입니다."),
    "Variety": Words("다양성", "전체 가운데 서로 다른 단어와 단어 쌍의 비율입니다."),
    "Repetition": Words("반복", "앞의 여덟 단어 중 하나와 같은 단어의 비율입니다."),
    "Script and register": Words("한글과 말투", "글자 가운데 한글의 비율, 문장 가운데 존댓말의 비율입니다."),
    "Learning rate": Words("학습률", "워밍업, 감쇠, 경보를 거친 값입니다."),
}  # by the English title: its Korean, and the Korean of its caption


def both(words: Words) -> Cell:
    """The two texts, escaped, of which the page shows one; one alone where they are the same."""
    if words.ko == words.en:
        return Cell(escape(words.en))
    return Cell(f'<span lang="ko">{escape(words.ko)}</span><span lang="en">{escape(words.en)}</span>')


def paragraph(words: Words, kind: str = "") -> str:
    return f'<p class="{kind}">{both(words)}</p>' if kind else f"<p>{both(words)}</p>"


def heading(level: int, words: Words, anchor: str = "") -> str:
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{name}>{both(words)}</h{level}>"


def folded(words: Words, body: str) -> str:
    """What opens when it is asked for."""
    return f"<details><summary>{both(words)}</summary>{body}</details>"


def table(head: Sequence[Words | str], rows: Sequence[Sequence[Words | str]]) -> str:
    """Cells of text, of both languages, or HTML as `Cell`; the first column reads from the left."""

    def shown(cell: Words | str) -> str:
        if isinstance(cell, Words):
            return both(cell)
        return cell if isinstance(cell, Cell) else escape(cell)

    top = "".join(f"<th>{shown(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{shown(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{lines}</table></div>'
