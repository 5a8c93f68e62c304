"""The measures of `make bench`: what each is called in both languages, and where a part's result holds its figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import fastest

Result = Mapping[str, Any]
Text = dict[str, str]


@dataclass(frozen=True)
class Found:
    """A figure, its smallest and largest round, and the side it is compared with where that was chosen by speed."""

    value: float
    low: float | None = None
    high: float | None = None
    side: str = ""
    rounds: int = 1


@dataclass(frozen=True)
class Measure:
    """One row. `read` takes it from the result of `part`; it raises KeyError where the result lacks it.

    readme: whether the READMEs show it. against: the other side, in which {side} is
    the chosen one and {trl}, {llamafactory} and {ms-swift} are versions.
    """

    key: str
    part: str
    work: Text
    against: Text
    read: Callable[[Result], Found]
    readme: bool = False


def versus(figure: str, *theirs: str, rounds: str = "rounds", ours: str = "ours") -> Callable[[Result], Found]:
    """Ours over the fastest of the other sides that were measured, as the median over rounds."""

    def read(result: Result) -> Found:
        kept = result[rounds]
        there = [side for side in theirs if side in kept[0]]
        if not there:
            raise KeyError(theirs[0])
        side = fastest(kept, there, figure)
        ratios = [each[ours][figure] / each[side][figure] for each in kept]
        return Found(statistics.median(ratios), min(ratios), max(ratios), side, len(ratios))

    return read


def within(side: str, figure: str, rounds: str = "rounds") -> Callable[[Result], Found]:
    """A figure of one side, as the median over rounds."""

    def read(result: Result) -> Found:
        values = [each[side][figure] for each in result[rounds]]
        return Found(statistics.median(values), min(values), max(values), rounds=len(values))

    return read


def value(key: str) -> Callable[[Result], Found]:
    """A number that the result holds at its top."""
    return lambda result: Found(float(result[key]))


def speed_of_serving(streams: str, side: str, theirs: str) -> Callable[[Result], Found]:
    def read(result: Result) -> Found:
        ratios = [each["rlhf"][streams] / each[side][theirs] for each in result["rounds"]]
        return Found(statistics.median(ratios), min(ratios), max(ratios), side, len(ratios))

    return read


def _peer(stage: str, peer: str, figure: str, work: Text) -> Measure:
    names = {"lf": "LLaMA-Factory {llamafactory}", "swift": "ms-swift {ms-swift}"}
    kept = f"rounds_{stage}"
    against = dict.fromkeys(("en", "ko"), names[peer])
    return Measure(f"{stage}_{peer}", "peers", work, against, versus(figure, peer, rounds=kept), readme=True)


def _alike(text: str) -> Text:
    return {"en": text, "ko": text}


_TOKENS: Text = {"en": "stage 1, real tokens/s", "ko": "1단계, 초당 실제 토큰"}
_PAIRS: Text = {"en": "stage 2, pairs/s", "ko": "2단계, 초당 쌍"}
_SAMPLES: Text = {"en": "stage 3, samples/s", "ko": "3단계, 초당 샘플"}
_TRL_PPO = _alike("TRL {trl} `PPOTrainer`")

MEASURES = (
    Measure(
        "sft_tokens_ratio", "sft", _TOKENS,
        {"en": "TRL {trl} `SFTTrainer`, {side}, its best mode", "ko": "TRL {trl} `SFTTrainer`, 가장 빠른 모드({side})"},
        versus("tokens_per_s", "trl_padded", "trl_grouped", "trl_packed"), readme=True,
    ),
    Measure(
        "sft_floor_share", "sft", {"en": "stage 1, share of the matrix floor", "ko": "1단계, 행렬 곱 하한 대비"},
        {"en": "the matrix products alone", "ko": "행렬 곱만 했을 때"}, within("ours", "floor_share"),
    ),
    Measure(
        "reward_best_ratio", "reward", _PAIRS,
        {
            "en": "TRL {trl} `RewardTrainer`, {side}, its best mode",
            "ko": "TRL {trl} `RewardTrainer`, 가장 빠른 모드({side})",
        },
        versus("rows_per_s", "trl_padded", "trl_grouped"), readme=True,
    ),
    Measure(
        "reward_k6_best_ratio", "reward",
        {"en": "stage 2, rankings of six answers/s", "ko": "2단계, 초당 순위 데이터(답변 6개)"},
        {
            "en": "TRL {trl} `RewardTrainer`, its best mode, on all pairs",
            "ko": "TRL {trl} `RewardTrainer`, 가장 빠른 모드, 모든 쌍",
        },
        versus("rows_per_s", "trl_padded", "trl_grouped", rounds="k6_rounds"), readme=True,
    ),
    Measure(
        "dpo_pairs_ratio", "dpo",
        {
            "en": "DPO, pairs/s, reference precomputed on both sides",
            "ko": "DPO, 초당 쌍, 양쪽 다 참조 모델 값을 미리 계산",
        },
        {"en": "TRL {trl} `DPOTrainer`, {side}, its best mode", "ko": "TRL {trl} `DPOTrainer`, 가장 빠른 모드({side})"},
        versus("pairs_per_s", "trl_padded", "trl_grouped", "trl_unpadded"), readme=True,
    ),
    Measure(
        "ppo_ratio_b8", "ppo",
        {
            "en": "stage 3, samples/s, 8 prompts of exactly 128 new tokens",
            "ko": "3단계, 초당 샘플, 프롬프트 8개, 정확히 128토큰 생성",
        },
        _TRL_PPO, versus("samples_per_s", "trl", rounds="rounds_b8"), readme=True,
    ),
    Measure(
        "ppo_ratio_b64", "ppo",
        {
            "en": "stage 3, samples/s, 64 prompts, natural EOS",
            "ko": "3단계, 초당 샘플, 프롬프트 64개, EOS에서 종료",
        },
        _TRL_PPO, versus("samples_per_s", "trl", rounds="rounds_b64"), readme=True,
    ),
    Measure(
        "ppo_reuse_ratio", "ppo",
        {
            "en": "stage 3, iterations after the first epoch, 8 x 128 new tokens, answers reused as drafts",
            "ko": "3단계, 첫 에폭 이후 이터레이션, 8 x 128 토큰, 이전 답변을 초안으로 재사용",
        },
        {"en": "without reuse", "ko": "재사용하지 않을 때"},
        versus("iterations_per_s", "anew", rounds="rounds_reuse_b8", ours="reuse"),
    ),
    *(_peer("sft", peer, "tokens_per_s", _TOKENS) for peer in ("lf", "swift")),
    *(_peer("reward", peer, "pairs_per_s", _PAIRS) for peer in ("lf", "swift")),
    *(_peer("ppo", peer, "samples_per_s", _SAMPLES) for peer in ("lf", "swift")),
    Measure(
        "serve_1", "serve", {"en": "service, tokens/s of one stream", "ko": "서비스, 스트림 1개의 초당 토큰"},
        _alike("`generate` of transformers"), speed_of_serving("1", "transformers", "1"),
    ),
    Measure(
        "serve_32", "serve", {"en": "service, tokens/s of 32 streams", "ko": "서비스, 스트림 32개의 초당 토큰"},
        _alike("`generate` of transformers"), speed_of_serving("32", "transformers", "1"),
    ),
    *(
        Measure(f"{side}_s", "start", work, {"en": "seconds", "ko": "초"}, within(side, "seconds"))
        for side, work in (
            ("first_step", {"en": "from the launch line to the first step", "ko": "실행 명령부터 첫 스텝까지"}),
            ("wrong_value", {"en": "from the launch line to a mistake's error", "ko": "실행 명령부터 설정 오류까지"}),
            ("help", {"en": "`--help` of a script", "ko": "스크립트의 `--help`"}),
        )
    ),
    *(
        Measure(
            f"{part}_memory_ratio", part,
            {
                "en": f"stage {stage}, peak memory above the imports, 34 M parameters",
                "ko": f"{stage}단계, import 이후의 최대 메모리(34M)",
            },
            {
                "en": f"TRL {{trl}} `{trainer}`, its mode with the least",
                "ko": f"TRL {{trl}} `{trainer}`, 가장 적게 쓰는 모드",
            },
            value("memory_ratio"),
        )
        for part, stage, trainer in (("sft", 1, "SFTTrainer"), ("reward", 2, "RewardTrainer"))
    ),
    Measure(
        "shared_memory_ratio", "ppo",
        {
            "en": "stage 3, peak memory on a shared backbone, 111 M parameters",
            "ko": "3단계, 공유 백본의 최대 메모리(111M)",
        },
        {"en": "separate roles", "ko": "역할별 모델"}, value("shared_memory_ratio"),
    ),
    Measure(
        "rollout_32", "rollout",
        {"en": "answers to 32 prompts, tokens/s of vLLM", "ko": "프롬프트 32개, vLLM의 초당 토큰"},
        {"en": "the loop of this package", "ko": "이 패키지의 생성 루프"}, value("tokens_ratio_32"),
    ),
    Measure(
        "plan_error", "plan", {"en": "largest error of `rlhf plan`", "ko": "`rlhf plan`의 최대 오차"},
        {"en": "memory of twelve runs", "ko": "실행 12개의 메모리"}, value("max_error"),
    ),
    Measure(
        "sample_ratio", "ppo_learning",
        {
            "en": "stage 3, share of TRL's samples to its final reward",
            "ko": "3단계, TRL의 최종 보상까지 필요한 샘플 비율",
        },
        _TRL_PPO, value("sample_ratio"),
    ),
)  # fmt: skip


def row(measure: Measure, found: Mapping[str, Mapping[str, Any]], versions: Mapping[str, Mapping[str, str]]) -> Result:
    """The row of a measure: its figure with the machine's state, or why it is missing."""
    from machine import states_in, summary

    part = found.get(measure.part)
    head = {"key": measure.key, "work": measure.work, "readme": measure.readme}
    if part is None:
        return {**head, "against": _named(measure, "", versions), "missing": "not asked for"}
    if "error" in part:
        return {**head, "against": _named(measure, "", versions), "missing": part["error"]}
    try:
        figure = measure.read(part["result"])
    except (KeyError, IndexError):
        reasons = part["result"].get("missing", {})
        why = reasons.get(measure.key, f"not in the result of benchmarks/{measure.part}.py")
        impossible = measure.key in part["result"].get("impossible", [])
        return {**head, "against": _named(measure, "", versions), "missing": why, "impossible": impossible}
    return {
        **head,
        "against": _named(measure, figure.side, versions),
        "value": figure.value,
        "range": None if figure.low is None else [figure.low, figure.high],
        "rounds": figure.rounds,
        "machine": summary(states_in(part)),
    }


def _named(measure: Measure, side: str, versions: Mapping[str, Mapping[str, str]]) -> Text:
    """The other side by name and version; without a version where it was not run."""
    known = {
        "side": side.partition("_")[2] or side,
        "trl": versions.get(measure.part, {}).get("trl", ""),
        "llamafactory": versions.get("lf", {}).get("llamafactory", ""),
        "ms-swift": versions.get("swift", {}).get("ms-swift", ""),
    }
    texts = {}
    for language, text in measure.against.items():
        named = text.format_map(known)
        texts[language] = " ".join(named.replace("()", "").replace(" ,", ",").replace(",,", ",").split())
    return texts
