"""The report card of a reward model, as one JSON object, from its scores of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf.data.records import Ranking
from rlhf.evaluate.reward.accuracy import ScoredRanking, accuracy, breakdown, outcome, report_card, untied_pairs
from rlhf.evaluate.reward.calibration import calibration, length_correlation, mean_kendall
from rlhf.evaluate.reward.leakage import last_question, leakage
from rlhf.evaluate.reward.probes import ProbeInputs
from rlhf.evaluate.reward.shortcuts import shortcut_section
from rlhf.evaluate.reward.test_set import TestScores, TestSet

SWAP_TOLERANCE = 0.01


def build_reward_card(
    test_set: TestSet, scores: TestScores, *, training: Sequence[Ranking], manifest: dict[str, Any] | None
) -> dict[str, Any]:
    """The whole card (docs/reward.md); for a test set without rankings, only that there are none.

    Args:
        test_set, scores: the rankings with their probes, and the scores of both.
        training: rankings the model was trained on, for the shortcut baselines; may be empty.
        manifest: of the model's run, to find leakage.
    """
    rows, lengths = scores.rows, test_set.lengths
    if not rows:
        return {"num_rankings": 0, "num_without_pair": test_set.num_without_pair}
    differences = [row.difference(pair) for row in rows for pair in untied_pairs(row.ranks)]
    leaks = leakage(test_set.rankings, manifest)
    return _without_nan(
        {
            **report_card(rows, lengths),
            "num_without_pair": test_set.num_without_pair,
            **breakdown(rows, lengths),
            "calibration": calibration(differences),
            "length_correlation": length_correlation(rows, lengths),
            "kendall": mean_kendall(rows),
            "swapped": swapped_section(rows[: len(scores.swapped)], scores.swapped),
            "probes": {
                probe.name: probe_section(probe, rows, scores.probes[probe.name])
                for probe in test_set.probes
                if probe.rows
            },
            "shortcuts": shortcut_section(rows, lengths, test_set.rankings, training),
            "leakage": {**leaks.section, "accuracy_on_unseen": _unseen(test_set.rankings, rows, leaks.prompts)},
        }
    )


def probe_section(
    probe: ProbeInputs, rows: Sequence[ScoredRanking], scores: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """How one probe changed scores and pairs, over the pairs it edits.

    Args:
        probe: which rows and answers were edited.
        rows: scores before, of all rankings.
        scores: scores after, in the order of `probe.answers`.

    A probe of answers compares the edited better answer with the unedited worse one.
    """
    before, after, changes, preferred = [], [], [], []
    for row, numbers, values in zip(probe.rows, probe.answers, scores, strict=True):
        original, edited = rows[row], dict(zip(numbers, values, strict=True))
        changes += [value - original.scores[number] for number, value in edited.items()]
        preferred += [value > original.scores[number] for number, value in edited.items()]
        for pair in untied_pairs(original.ranks):
            if pair.better in edited:
                worse = edited[pair.worse] if probe.edits == "prompt" else original.scores[pair.worse]
                before.append(original.difference(pair))
                after.append(edited[pair.better] - worse)
    found = {
        "applied_to": "the prompt" if probe.edits == "prompt" else "the better answer",
        "num_rankings": len(probe.rows),
        "num_pairs": len(after),
        "accuracy_before": float(np.mean(list(map(outcome, before)))),
        "accuracy": float(np.mean(list(map(outcome, after)))),
        "mean_score_change": float(np.mean(changes)),
        "share_flipped": float(np.mean(np.sign(before) != np.sign(after))),
    }
    return found if probe.edits == "prompt" else {**found, "share_preferred_over_original": float(np.mean(preferred))}


def swapped_section(rows: Sequence[ScoredRanking], swapped: Sequence[ScoredRanking]) -> dict[str, Any]:
    """Accuracy with better and worse swapped, of answers scored in the other order: it must be 1 - accuracy.

    Anything else says that a score depends on the place of an answer among the others, or that scores are assigned to
    the wrong answers; `holds` allows for pairs whose scores differ by rounding alone.
    """
    straight, reverse = accuracy(rows)["accuracy"], accuracy(swapped)["accuracy"]
    changes = [
        abs(score - again)
        for row, other in zip(rows, swapped, strict=True)
        for score, again in zip(row.scores, other.scores[::-1], strict=True)
    ]
    return {
        "num_rankings": len(rows),
        "accuracy": straight,
        "accuracy_swapped": reverse,
        "sum": straight + reverse,
        "largest_score_change": max(changes),
        "holds": abs(straight + reverse - 1) <= SWAP_TOLERANCE,
    }


def _unseen(rankings: Sequence[Ranking], rows: Sequence[ScoredRanking], seen: set[str]) -> dict[str, float] | None:
    """Accuracy on prompts that are in no training file; None where that is all of them, or none."""
    kept = [row for record, row in zip(rankings, rows, strict=True) if last_question(record.prompt) not in seen]
    return accuracy(kept) if 0 < len(kept) < len(rows) else None


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
