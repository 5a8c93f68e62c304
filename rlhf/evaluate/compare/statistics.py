"""Win rates of the second model over the first, with intervals, power, and the verdict in words.

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
from rlhf.evaluate.intervals import SHARE, Draws, Figure, Floats, bootstrap_interval, mean_figure
from rlhf.html.intervals import figure_text
from rlhf.html.texts import Texts
from rlhf.html.words import Words, joined, same

text = Texts("rlhf.evaluate")
TOO_MANY = 20_000  # prompts; more than anybody will sample
RIDGE = 0.01  # on both coefficients: keeps them finite where one model wins everything, too weak to matter elsewhere
NEWTON_STEPS = 30
BOOTSTRAP_FITS = 500


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
    section["sentence"] = verdict_words(section, names)._asdict()
    return section


def verdict_words(section: dict[str, Any], names: tuple[str, str]) -> Words:
    """Better, worse, or too few prompts to tell and how many it takes."""
    count, needed = section["num_prompts"], section["prompts_for_80_percent_power"]
    wanted = max(needed or 0, MIN_PROMPTS)
    if needed is None:
        more = "compare.exactly_even"
    elif wanted > TOO_MANY:
        more = "compare.out_of_reach"
    else:
        more = "compare.close_call" if wanted <= count else "compare.more_needed"
    return text(
        f"compare.{section['outcome']}",
        by=joined((text(f"compare.by.{section['kind']}"), same(section["name"]))),
        first=names[0],
        second=names[1],
        rate=text("compare.rate", count=count, figures=figure_text(section["win_rate"], ".1%")),
        more=text(more, prompts=min(wanted, TOO_MANY)),
    )


def text_words(differing: Sequence[Words], names: tuple[str, str], count: int) -> Words:
    """The verdict without a judge, a reward model or people; `differing` names the measures in which the two differ."""
    listed = joined(differing, ", ") if differing else text("compare.no_measure")
    return text("compare.text_alone", count=count, first=names[0], second=names[1], listed=listed)


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
