"""Preference optimisation on the problem's rankings, and the weights it started from in place of the trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlhf.data.packing import trees_of
from rlhf.train.preference.data import answers_of_others
from rlhf.train.preference.reference import tree_logprobs
from rlhf.train.preference.rows import ReferencedRow
from rlhf.train.preference.step import preference_step
from tests.distributed.preferences import dpo_config, items_of
from tests.distributed.problem import SCHEDULE, SMALL, STEP_NUMBERS, Problem
from tests.distributed.workers.building import Results, causal_lm


def run_preferences(results: Results, problem: Problem, path: str, loss: str, stage: int, out: Path) -> None:
    """Three steps; then how far the reference's numbers, read again by its weights in place, are from the first."""
    name, config = f"{loss} zero{stage}", dpo_config(loss)
    trained = causal_lm(path, stage, config.train, results.ranks)
    start = trained.starting_weights(out / f"start {name}")
    batches = [_with_reference(trained, items_of(loss, batch)) for batch in problem.rankings]
    trained.train()
    results.numbers[name] = [
        preference_step(trained, batch, config, SCHEDULE, step)
        for step, batch in zip(STEP_NUMBERS, batches, strict=True)
    ]
    trees = trees_of([row.item for row in batches[0]])
    with start.in_place():
        again = tree_logprobs(trained, trees, SMALL)
    moved = tree_logprobs(trained, trees, SMALL)
    start.remove()
    known = [row.reference for row in batches[0]]
    results.numbers[f"start {name}"] = [_gap(again, known), _gap(moved, known)]
    results.weights[f"{name} model"] = trained.state_dict()


def _with_reference(trained: Any, items: list[Any]) -> list[ReferencedRow]:
    others = answers_of_others(items, SMALL)
    known, of_others = tree_logprobs(trained, trees_of(items), SMALL), tree_logprobs(trained, others, SMALL)
    return [
        ReferencedRow(item, own, other, of_other)
        for item, own, other, (of_other,) in zip(items, known, others, of_others, strict=True)
    ]


def _gap(found: Any, known: Any) -> float:
    flat = [torch.tensor([number for row in rows for number in row]) for rows in (found, known)]
    return float((flat[0] - flat[1]).abs().max())
