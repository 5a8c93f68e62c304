"""Writes the measured tables of docs/case-study.md and docs/case-study.ko.md from case-study.json in this folder.

python docs/figures/case_study_tables.py                rewrites what stands between the markers
python docs/figures/case_study_tables.py --take RUN     first copies the figures of a finished `make case-study`

Only figures, curves and the models' own answers to prompts of this project are copied: no text of the data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from blocks import markdown, replaced

FIGURES = Path(__file__).parent / "case-study.json"
DOCS = Path(__file__).parents[1]
PAGES = {"en": DOCS / "case-study.md", "ko": DOCS / "case-study.ko.md"}
GIB, POINTS = 2**30, 80
STAGES = ("sft", "reward", "judge", "ppo")
ARMS = ("sft", "ppo")
SHOWN = ("measured", "machine", "versions", "seconds", "part_seconds", "peak_bytes", "planned", "answers", "reading")
EMPTY = "–"
Report = Mapping[str, Any]
Text = dict[str, str]

PARTS: dict[str, Text] = {
    "base": {"en": "base from the GGUF file", "ko": "GGUF 파일을 base로 변환"},
    "filter": {"en": "rows of more than 160 tokens left out", "ko": "160토큰이 넘는 행 제외"},
    "sft": {"en": "stage 1", "ko": "1단계"},
    "reward": {"en": "stage 2, the reward model", "ko": "2단계, 보상 모델"},
    "judge": {"en": "stage 2, the second reward model", "ko": "2단계, 두 번째 보상 모델"},
    "ppo": {"en": "stage 3", "ko": "3단계"},
    "judging": {"en": "answers to held-out prompts, judged", "ko": "평가용 프롬프트에 답하고 심사"},
    "between": {"en": "the rest of `rlhf arms`", "ko": "`rlhf arms`의 나머지"},
    "answers": {"en": "answers to the prompts below", "ko": "아래 프롬프트에 답하기"},
    "card": {"en": "report card of the reward model", "ko": "보상 모델 성적표"},
    "all": {"en": "**in all**", "ko": "**전체**"},
}
HEADS: dict[str, dict[str, Sequence[str]]] = {
    "stages": {
        "en": ("part", "steps", "minutes", "peak memory", "planned"),
        "ko": ("항목", "스텝", "분", "최대 메모리", "계획한 메모리"),
    },
    "reward": {
        "en": ("pairs", "number", "accuracy, 95 % interval"),
        "ko": ("쌍", "개수", "정확도와 95 % 구간"),
    },
    "policies": {
        "en": ("policy", "score of the second reward model", "KL, nats", "ended", "polite", "rude", "distinct-2"),
        "ko": ("정책", "두 번째 보상 모델의 점수", "KL(nats)", "스스로 끝맺음", "존댓말", "무례한 말", "distinct-2"),
    },
    "aims": {"en": ("aim", "measured", "reached"), "ko": ("목표", "측정값", "달성")},
    "answers": {"en": ("prompt", "SFT", "PPO"), "ko": ("프롬프트", "SFT", "PPO")},
}
GLOSSES = (
    "I made a mistake at work today and felt bad all day.",
    "They say it will rain at the weekend. What could I do at home?",
    "I worry because I sleep badly these days.",
    "What would be a good birthday present for a friend?",
    "I finally passed my driving test!",
    "I am getting a puppy for the first time. What do I need?",
)
WORDS: dict[str, Text] = {
    "all_pairs": {"en": "all", "ko": "전체"},
    "longer": {"en": "the longer answer", "ko": "더 긴 답변을 고를 때"},
    "ngrams": {"en": "character n-grams of the answer", "ko": "답변의 글자 n-그램"},
    "yes": {"en": "yes", "ko": "예"},
    "no": {"en": "**no**", "ko": "**아니요**"},
    "difference": {
        "en": "PPO minus SFT by the second reward model: **{mean:+.2f}** [{low:+.2f}, {high:+.2f}] over "
        "{prompts} prompts with {answers} answers each",
        "ko": "두 번째 보상 모델로 본 PPO와 SFT의 차이: **{mean:+.2f}** [{low:+.2f}, {high:+.2f}]. "
        "프롬프트 {prompts}개, 프롬프트마다 답변 {answers}개",
    },
    "read": {
        "en": "Read blind, {count} pairs: PPO better {better}, equal {equal}, SFT better {worse}; wins minus one half "
        "{mean:+.2f} [{low:+.2f}, {high:+.2f}]",
        "ko": "출처를 가리고 {count}쌍을 읽은 결과: PPO가 나음 {better}, 비슷함 {equal}, SFT가 나음 {worse}. "
        "승률 - 1/2 = {mean:+.2f} [{low:+.2f}, {high:+.2f}]",
    },
    "machine": {
        "en": "Measured on {date}: {cores} cores with {memory:.0f} GiB, bfloat16 {bfloat}.",
        "ko": "{date} 측정. 코어 {cores}개, 메모리 {memory:.0f} GiB, bfloat16 {bfloat}.",
    },
    "hardware": {"en": "in hardware (AVX-512 BF16 or AMX)", "ko": "하드웨어 지원(AVX-512 BF16 또는 AMX)"},
    "software": {"en": "without hardware", "ko": "하드웨어 지원 없음"},
}
AIMS: dict[str, Text] = {
    "hours": {"en": "all of it in at most 4 hours", "ko": "전체 4시간 이내"},
    "accuracy": {
        "en": "reward accuracy of at least .66, interval above the longer answer",
        "ko": "보상 모델 정확도 .66 이상, 구간 전체가 더 긴 답변보다 위",
    },
    "judge": {
        "en": "PPO above SFT by the second reward model, interval above 0",
        "ko": "두 번째 보상 모델에서 PPO가 SFT보다 높고 구간이 0보다 위",
    },
    "eos": {"en": "answers of PPO that end by themselves, at least .98", "ko": "스스로 끝나는 PPO 답변 .98 이상"},
}


def recorded() -> Report | None:
    """The figures in this folder; None where there are none."""
    found: Report | None = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else None
    return found


def take(folder: Path) -> None:
    """Copies what the pages show of a finished study, as precisely as it is shown."""
    text = (folder / "case-study.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_float=lambda number: round(float(number), 4))
    card, arms = found["card"], found["arms"]
    kept = {key: found[key] for key in SHOWN}
    kept["curves"] = {
        stage: {key: _thinned(points) for key, points in curves.items()} for stage, curves in found["curves"].items()
    }
    kept["card"] = {key: card[key] for key in ("accuracy", "low", "high", "num_pairs", "by_source", "longer_answer")}
    kept["card"]["ngrams"] = card["shortcuts"]["baselines"]["character_ngrams"]
    kept["card"]["minus_best"] = card["shortcuts"]["model_minus_best"]
    kept["arms"] = {name: {k: v for k, v in arms["arms"][name].items() if k != "measures"} for name in ARMS}
    kept |= {key: arms[key] for key in ("comparisons", "votes", "num_prompts", "answers_per_prompt")}
    FIGURES.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _thinned(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """At most about POINTS of them, the last among them."""
    every = max(1, len(points) // POINTS)
    return [*points[:-1:every], *points[-1:]]


def stages_table(report: Report, language: str) -> str:
    """Every part with its time, and a stage's memory beside what was planned."""
    seconds = part_seconds(report)
    rows = []
    for name, spent in seconds.items():
        memory = report["peak_bytes"].get(name)
        plan = report["planned"].get(name)
        rows.append(
            [
                PARTS[name][language],
                f"{plan['steps']:,}" if plan else EMPTY,
                f"{spent / 60:.1f}",
                f"{memory / GIB:.1f} GiB" if memory else EMPTY,
                f"{plan['peak_bytes'] / GIB:.1f} GiB" if plan else EMPTY,
            ]
        )
    rows.append([PARTS["all"][language], "", f"**{sum(seconds.values()) / 60:.0f}**", "", ""])
    machine = report["machine"]
    about = WORDS["machine"][language].format(
        date=report["measured"],
        cores=machine["cores"],
        memory=machine["memory_bytes"] / GIB,
        bfloat=WORDS["hardware" if machine["bfloat16"] else "software"][language],
    )
    return f"{about}\n\n{markdown(HEADS['stages'][language], rows)}"


def part_seconds(report: Report) -> dict[str, float]:
    """Seconds of each part in their order; `rlhf arms` is told apart into the stages that it starts."""
    whole, inner = report["seconds"], report["part_seconds"]
    stages = {name: inner[name] for name in ("reward", "judge", "ppo", "judging")}
    between = whole.get("arms", 0.0) - sum(stages.values())  # not known where it was interrupted from outside
    return {
        "base": whole["base"],
        "filter": whole["filter_train"] + whole["filter_dev"],
        "sft": whole["sft"],
        **stages,
        **({"between": between} if between > 0 else {}),
        "card": whole["card"],
        "answers": whole["answers_sft"] + whole["answers_ppo"],
    }


def reward_table(report: Report, language: str) -> str:
    """Accuracy over all pairs, by source, and of the two shortcuts."""
    card = report["card"]
    rows = [(WORDS["all_pairs"][language], card), *((f"`{name}`", each) for name, each in card["by_source"].items())]
    rows += [(WORDS["longer"][language], card["longer_answer"]), (WORDS["ngrams"][language], card["ngrams"])]
    return markdown(HEADS["reward"][language], [[name, str(each["num_pairs"]), _share(each)] for name, each in rows])


def _share(figure: Report) -> str:
    return f"{figure['accuracy']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def policies_table(report: Report, language: str) -> str:
    """Both policies by the judge and by measures, their paired difference, and what was read blind."""
    rows = []
    for name in ARMS:
        arm = report["arms"][name]
        low, high = arm["interval"]
        shares = [EMPTY if arm[key] is None else f"{arm[key]:.1%}" for key in ("eos", "polite", "rude", "distinct2")]
        rows.append([name.upper(), f"{arm['reward']:.2f} [{low:.2f}, {high:.2f}]", f"{arm['kl']:.2f}", *shares])
    counts = {"prompts": report["num_prompts"], "answers": report["answers_per_prompt"]}
    said = [WORDS["difference"][language].format(**gain(report["comparisons"]), **counts) + "."]
    if report.get("reading"):
        said.append(WORDS["read"][language].format(**report["reading"], **gain(report["votes"])) + ".")
    return "\n\n".join([markdown(HEADS["policies"][language], rows).rstrip("\n"), *said]) + "\n"


def gain(comparisons: Sequence[Report]) -> dict[str, float]:
    """PPO minus SFT with its interval, whichever way round it was compared."""
    (pair,) = (each for each in comparisons if {each["of"], each["minus"]} == set(ARMS))
    if pair["of"] == "ppo":
        return {"mean": pair["mean"], "low": pair["low"], "high": pair["high"]}
    return {"mean": -pair["mean"], "low": -pair["high"], "high": -pair["low"]}


def aims_table(report: Report, language: str) -> str:
    """Each aim, what was measured, and whether that reaches it."""
    hours, card = sum(part_seconds(report).values()) / 3600, report["card"]
    judged, ended = gain(report["comparisons"]), report["arms"]["ppo"]["eos"]
    measured = {
        "hours": (f"{hours:.1f} h", hours <= 4),
        "accuracy": (_share(card), card["accuracy"] >= 0.66 and card["low"] > card["longer_answer"]["accuracy"]),
        "judge": (f"{judged['mean']:+.2f} [{judged['low']:+.2f}, {judged['high']:+.2f}]", judged["low"] > 0),
        "eos": (f"{ended:.3f}", ended >= 0.98),
    }
    rows = [
        [AIMS[key][language], figure, WORDS["yes" if reached else "no"][language]]
        for key, (figure, reached) in measured.items()
    ]
    return markdown(HEADS["aims"][language], rows)


def answers_table(report: Report, language: str) -> str:
    """The prompts of this project with both answers, drawn greedily."""
    rows = []
    for gloss, each in zip(GLOSSES, report["answers"], strict=True):
        prompt = f"{each['prompt']}<br>*{gloss}*" if language == "en" else each["prompt"]
        rows.append([prompt, *(" ".join(each[name].split()).replace("|", "\\|") for name in ARMS)])
    return markdown(HEADS["answers"][language], rows)


TABLES = {
    "stages": stages_table,
    "reward": reward_table,
    "policies": policies_table,
    "answers": answers_table,
    "aims": aims_table,
}


def rewritten(page: str, report: Report, language: str) -> str:
    """The page with every table made anew."""
    for name, table in TABLES.items():
        page = replaced(page, name, table(report, language))
    return page


def main() -> None:
    """Rewrites both pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--take", type=Path, metavar="RUN", help="folder of a finished case study")
    arguments = parser.parse_args()
    if arguments.take:
        take(arguments.take)
    report = recorded()
    if report is None:
        raise SystemExit(f"{FIGURES} is missing; name a finished study with --take")
    for language, path in PAGES.items():
        path.write_text(rewritten(path.read_text(encoding="utf-8"), report, language), encoding="utf-8")


if __name__ == "__main__":
    main()
