"""The report card of a reward model, as one JSON object, from the scores of its exam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf.data.records import Ranking
from rlhf.evaluate.reward.accuracy import ScoredRanking, accuracy, breakdown, outcome, report_card, untied_pairs
from rlhf.evaluate.reward.calibration import calibration, length_correlation, mean_kendall
from rlhf.evaluate.reward.leakage import asked, leakage
from rlhf.evaluate.reward.probes import Sheet
from rlhf.evaluate.reward.shortcuts import shortcut_section
from rlhf.evaluate.reward.test_set import TestScores, TestSet


def build_reward_card(
    exam: TestSet, marks: TestScores, *, training: Sequence[Ranking], manifest: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything the card holds (docs/reward.md); of an exam without rankings, that there are none.

    Args:
        exam, marks: what was asked, and the scores.
        training: rankings the model was trained on, for the shortcut baselines; may be empty.
        manifest: of the model's run, for leakage.
    """
    rows, lengths = marks.rows, exam.lengths
    if not rows:
        return {"num_rankings": 0, "num_without_pair": exam.num_without_pair}
    differences = [row.difference(pair) for row in rows for pair in untied_pairs(row.ranks)]
    leaks = leakage(exam.rankings, manifest)
    return _without_nan(
        {
            **report_card(rows, lengths),
            "num_without_pair": exam.num_without_pair,
            **breakdown(rows, lengths),
            "calibration": calibration(differences),
            "length_correlation": length_correlation(rows, lengths),
            "kendall": mean_kendall(rows),
            "probes": {
                sheet.name: probe_section(sheet, rows, marks.probes[sheet.name]) for sheet in exam.sheets if sheet.rows
            },
            "shortcuts": shortcut_section(rows, lengths, exam.rankings, training),
            "leakage": {**leaks.section, "accuracy_on_unseen": _unseen(exam.rankings, rows, leaks.prompts)},
        }
    )


def summary_line(card: dict[str, Any]) -> str:
    """The card of at least one ranking in two lines."""
    seen, asked_in_all = card["leakage"]["num_prompts_seen"], card["leakage"]["num_prompts"]
    return (
        f"held-out accuracy {card['accuracy']:.3f} [{card['low']:.3f}, {card['high']:.3f}] on {card['num_pairs']} "
        f"pairs, neighbouring ranks {card['neighbours']['accuracy']:.3f}, the longer answer "
        f"{card['longer_answer']['accuracy']:.3f}, calibration error {card['calibration']['ece']:.3f}, "
        f"{seen} of {asked_in_all} prompts seen in training\n{card['shortcuts']['verdict']}"
    )


def probe_section(sheet: Sheet, rows: Sequence[ScoredRanking], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What one probe did, over the pairs it changed.

    Args:
        sheet: which rows and answers were edited.
        rows: scores before, of all rankings.
        scores: scores after, in the order of `sheet.answers`.

    Of a probe that touches answers, each pair has its better answer edited and its worse as it was.
    """
    before, after, moves, preferred = [], [], [], []
    for row, numbers, values in zip(sheet.rows, sheet.answers, scores, strict=True):
        judged, edited = rows[row], dict(zip(numbers, values, strict=True))
        moves += [value - judged.scores[number] for number, value in edited.items()]
        preferred += [value > judged.scores[number] for number, value in edited.items()]
        for pair in untied_pairs(judged.ranks):
            if pair.better in edited:
                worse = edited[pair.worse] if sheet.touches == "prompt" else judged.scores[pair.worse]
                before.append(judged.difference(pair))
                after.append(edited[pair.better] - worse)
    found = {
        "applied_to": "the prompt" if sheet.touches == "prompt" else "the better answer",
        "num_rankings": len(sheet.rows),
        "num_pairs": len(after),
        "accuracy_before": float(np.mean(list(map(outcome, before)))),
        "accuracy": float(np.mean(list(map(outcome, after)))),
        "mean_score_change": float(np.mean(moves)),
        "share_flipped": float(np.mean(np.sign(before) != np.sign(after))),
    }
    return found if sheet.touches == "prompt" else {**found, "share_preferred_over_original": float(np.mean(preferred))}


def _unseen(rankings: Sequence[Ranking], rows: Sequence[ScoredRanking], seen: set[str]) -> dict[str, float] | None:
    """Accuracy on prompts no training file held; None where that is all of them, or none."""
    kept = [row for record, row in zip(rankings, rows, strict=True) if asked(record.prompt) not in seen]
    return accuracy(kept) if 0 < len(kept) < len(rows) else None


def _without_nan(value: Any) -> Any:
    """The same with None for numbers that are not: JSON has none."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
