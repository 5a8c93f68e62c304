"""Win rates of the second model over the first, with intervals, power and a verdict in words.

An outcome is 1 where the second model's answer is better, 0 where it is worse and .5 for a tie. All answers to a prompt
are one unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit

from rlhf.evaluate.control_group import MIN_PROMPTS, outcome, prompts_needed
from rlhf.evaluate.intervals import SHARE, Draws, Figure, Floats, bootstrap_interval, figure_text, mean_figure

RIDGE = 0.01  # on both coefficients: keeps them finite where one model wins everything, too weak to matter elsewhere
NEWTON_STEPS = 30
BOOTSTRAP_FITS = 500
TOO_MANY = 20_000  # prompts; more than anybody will sample


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts of one judge, reward model or group of people, prompt by prompt.

    outcomes: [P][K'], empty for an undecided prompt.
    length_gaps: characters of the second model's answer minus the first's, of each outcome.
    gaps: points or reward units, second minus first, of each outcome where there are such.
    """

    kind: str
    name: str
    outcomes: list[list[float]]
    length_gaps: list[list[float]]
    gaps: list[list[float]] = field(default_factory=list)
    unit: str = ""
    notes: tuple[str, ...] = ()


def comparison_section(verdicts: Verdicts, names: tuple[str, str]) -> dict[str, Any]:
    """The second model against the first by one source of verdicts, as compare.json holds it."""
    decided = [row for row, found in enumerate(verdicts.outcomes) if found]
    means = np.asarray([np.mean(verdicts.outcomes[row]) for row in decided])
    flat = [each for found in verdicts.outcomes for each in found]
    section: dict[str, Any] = {
        "kind": verdicts.kind,
        "name": verdicts.name,
        "num_prompts": len(decided),
        "num_undecided": len(verdicts.outcomes) - len(decided),
        "wins": sum(each > 0.5 for each in flat),
        "ties": sum(each == 0.5 for each in flat),
        "losses": sum(each < 0.5 for each in flat),
        "notes": list(verdicts.notes),
    }
    if not decided:
        return section
    rate = mean_figure(means, SHARE)
    section["win_rate"] = rate
    section["length_controlled"] = length_controlled(verdicts.outcomes, verdicts.length_gaps)
    if verdicts.gaps:
        gaps = [float(np.mean(verdicts.gaps[row])) for row in decided]
        section["difference"] = {**mean_figure(gaps), "unit": verdicts.unit}
    section["prompts_for_80_percent_power"] = prompts_needed(means - 0.5)
    section["outcome"] = outcome(rate, len(decided), even=0.5)
    section["sentence"] = sentences(section, names)
    return section


def length_controlled(outcomes: Sequence[Sequence[float]], length_gaps: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The win rate at equal length: sigmoid(a) of the logistic regression of outcomes on a + b tanh(gap / scale).

    `scale` is the root mean square of the gaps, so that no gap stays no gap. Intervals by bootstrap over prompts.
    Where one model's answers are never the longer ones, length and quality cannot be separated: then only `why_not` is
    given.

    Source: arXiv:2404.04475, eq. 2, without its term for the instruction's difficulty.
    """
    y = np.asarray([each for found in outcomes for each in found], dtype=float)
    gaps = np.asarray([each for found in length_gaps for each in found], dtype=float)
    unit = np.asarray([row for row, found in enumerate(outcomes) for _ in found])
    if not (gaps > 0).any() or not (gaps < 0).any():
        return {"why_not": "the answers of one model are never the longer ones"}
    if np.ptp(y) == 0:  # nothing for length to explain
        return {"win_rate": mean_figure([found[0] for found in outcomes if found], SHARE), "length_coefficient": 0.0}
    x = np.tanh(gaps / math.sqrt(float((gaps**2).mean())))

    def rate(drawn: Draws) -> Floats:
        rows = np.atleast_2d(drawn)
        counts = np.zeros((len(rows), len(outcomes)))
        np.add.at(counts, (np.arange(len(rows))[:, None], rows), 1.0)
        return expit(fit_logistic(x, y, counts[:, unit])[:, 0])

    intercept, slope = fit_logistic(x, y, np.ones((1, len(y))))[0]
    low, high = bootstrap_interval(rate, len(outcomes), BOOTSTRAP_FITS)
    figure: Figure = {"mean": float(expit(intercept)), "low": low, "high": high}
    return {"win_rate": figure, "length_coefficient": float(slope)}


def fit_logistic(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Coefficients (a, b) [D, 2] of P = sigmoid(a + b x) by Newton's method, one fit per row of weights [D, N].

    Outcomes y [N] may lie between 0 and 1. Minimises the weighted cross-entropy plus RIDGE / 2 (a^2 + b^2).
    """
    coefficients = np.zeros((len(weights), 2))
    for _ in range(NEWTON_STEPS):
        chance = expit(coefficients[:, :1] + coefficients[:, 1:] * x)
        error, spread = weights * (chance - y), weights * chance * (1 - chance)
        gradient = np.stack([error.sum(1), error @ x], 1) + RIDGE * coefficients
        aa, ab, bb = spread.sum(1) + RIDGE, spread @ x, spread @ x**2 + RIDGE
        determinant = aa * bb - ab**2
        step = np.stack([bb * gradient[:, 0] - ab * gradient[:, 1], aa * gradient[:, 1] - ab * gradient[:, 0]], 1)
        step /= determinant[:, None]
        largest = np.abs(step).max(1, keepdims=True)
        coefficients -= step / np.maximum(1.0, largest / 2)  # no step above 2: far from the optimum Newton overshoots
        if largest.max() < 1e-10:
            break
    return coefficients


def sentences(section: dict[str, Any], names: tuple[str, str]) -> dict[str, str]:
    """Better, worse, or too few prompts to tell and how many it takes, in English and Korean."""
    first, second = names
    rate, count = section["win_rate"], section["num_prompts"]
    figures = figure_text(rate, ".1%")
    by = {"judge": "the judge", "reward": "the reward model", "people": "people"}[section["kind"]]
    whose = {"judge": "심사 모델", "reward": "보상 모델", "people": "사람"}[section["kind"]]
    named = f" {section['name']}" if section["name"] else ""
    english_rate = f"it wins {figures} of {count:,} prompts, a tie counting half"
    korean_rate = f"프롬프트 {count:,}개에서 승률 {figures}, 무승부는 0.5승"
    needed = section["prompts_for_80_percent_power"]
    if section["outcome"] == "unknown":
        more = _more(needed, count)
        english = f"By {by}{named}, too few prompts to tell {second} from {first}: {english_rate}. {more['en']}"
        korean = (
            f"{whose}{named} 기준으로는 {second}와(과) {first}의 우열을 가릴 수 없습니다({korean_rate}). {more['ko']}"
        )
        return {"en": english, "ko": korean}
    better = section["outcome"] == "better"
    english = f"By {by}{named}, {second} is {'better' if better else 'worse'} than {first}: {english_rate}."
    korean = f"{whose}{named} 기준으로 {second} 쪽이 {first}보다 {'낫습니다' if better else '못합니다'}({korean_rate})."
    return {"en": english, "ko": korean}


def _more(needed: int | None, count: int) -> dict[str, str]:
    """How many prompts it takes to detect a difference of this size."""
    if needed is None:
        return {
            "en": "They are exactly even: more prompts at this rate would not separate them.",
            "ko": "승률이 정확히 반반이라, 프롬프트를 늘려도 이 수치만으로는 가려지지 않습니다.",
        }
    wanted = max(needed, MIN_PROMPTS)
    if wanted > TOO_MANY:
        return {
            "en": f"A difference this small takes more than {TOO_MANY:,} prompts to detect.",
            "ko": f"이렇게 작은 차이를 확인하려면 프롬프트가 {TOO_MANY:,}개 넘게 필요합니다.",
        }
    if wanted <= count:
        return {
            "en": f"A difference of this size takes about {wanted:,} prompts to detect: a close call, sample more.",
            "ko": f"이만한 차이라면 프롬프트 {wanted:,}개쯤이면 드러나는 정도라 아슬아슬합니다. 조금 더 물어보세요.",
        }
    return {
        "en": f"About {wanted:,} prompts would detect a difference of this size (80 % power).",
        "ko": f"이만한 차이를 확인하려면 프롬프트가 {wanted:,}개쯤 필요합니다(검정력 80 %).",
    }


def text_sentences(differing: Sequence[tuple[str, str]], names: tuple[str, str], count: int) -> dict[str, str]:
    """The verdict without a judge, a reward model or people.

    Args:
        differing: the English and Korean names of the measures in which the two differ.
    """
    first, second = names
    listed, korean = ", ".join(each for each, _ in differing), ", ".join(each for _, each in differing)
    return {
        "en": f"Without a judge, a reward model or people, better or worse cannot be said. Measures of the text that "
        f"differ between {second} and {first} on {count:,} prompts: {listed or 'none'}.",
        "ko": f"심사 모델, 보상 모델, 사람의 비교가 없어 우열은 말할 수 없습니다. "
        f"프롬프트 {count:,}개의 답변에서 {second}와(과) {first}의 글이 뚜렷이 다른 점: {korean or '없음'}.",
    }
