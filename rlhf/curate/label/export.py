"""Labels as a ranking file: one row by majority vote, or one row per person.

An edited answer becomes an additional answer, better than all others. Rows that everybody skipped are dropped. Rows
whose answers all tie (`all_bad` marks those that are all bad) are kept: stage 2 counts and skips them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlhf.curate.answer_rows import prompt_value
from rlhf.curate.label.agreement import grouped, label_report
from rlhf.curate.label.draft import Judgement
from rlhf.curate.label.store import LabelStore
from rlhf.curate.output import Output
from rlhf.errors import DataError

Merge = Literal["majority", "none"]


def export_labels(
    store: LabelStore,
    out: Path,
    *,
    inputs: Sequence[str],
    merge: Merge,
    options: Mapping[str, Any],
    unusable: Sequence[str] = (),
) -> Output:
    """Writes `out` and its manifest, which also holds the agreement and the `unusable` rows of the input.

    Raises DataError when nothing has been labelled yet.
    """
    judgements = store.judgements()
    rows = grouped(judgements, lambda judgement: judgement.item.key)
    if all(judgement.verdict == "skip" for judgement in judgements):
        raise DataError("nothing has been labelled yet", where=str(store.path), fix="rank a row on the page first")
    settings = {"merge": merge, **options}
    with Output(out, command="data label", inputs=inputs, options=settings) as output:
        for group in rows.values():
            judged = [judgement for judgement in group if judgement.verdict != "skip"]
            if not judged:
                output.drop("skipped", group[0].item.prompt[-1].content)
                continue
            for merged in [judged] if merge == "majority" else [[each] for each in judged]:
                _write(output, merged_row(merged))
        for problem in unusable:
            output.drop("cannot be labelled", problem)
        for _ in range(store.num_items() - len(rows)):
            output.drop("not labelled yet")
        output.extra["agreement"] = label_report(judgements)
    return output


def _write(output: Output, row: dict[str, Any]) -> None:
    output.write(row)
    if len(set(row["ranks"])) == 1:
        output.count("all tied")
    if "edited_from" in row:
        output.count("with an edited answer")


def merged_row(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """One ranking from one or more judgements of one row, none skipped."""
    item = judgements[0].item
    bad = 2 * sum(one.verdict == "bad" for one in judgements) > len(judgements)
    ranks = (1,) * len(item.responses) if bad else majority_ranks([one.ranks for one in judgements])
    edits = {one.edit: one.edit_of for one in judgements if one.edit}
    row: dict[str, Any] = {
        "prompt": prompt_value(item.prompt),
        "responses": [*item.responses, *edits],
        "ranks": [*(rank + len(edits) for rank in ranks), *(1 for _ in edits)],
    }
    optional: dict[str, Any] = {
        "source": item.source,
        "id": item.id,
        "models": [*item.models, *("person" for _ in edits)] if item.models else [],
        "all_bad": bad,
        "edited_from": list(edits.values()),
        "comments": [one.comment for one in judgements if one.comment],
    }
    row |= {name: value for name, value in optional.items() if value}
    return {**row, "annotators": [one.annotator for one in judgements]}


def majority_ranks(rankings: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Merges several rankings of the same answers (rank 1 is best) by pairwise majority.

    An answer beats another when more people prefer it than prefer the other, and more than call it a tie. Answers
    are ranked by pairs won minus pairs lost (Copeland), so cyclic majorities become ties.
    """
    ranks = np.array(rankings)
    better = (ranks[:, :, None] < ranks[:, None, :]).sum(axis=0)  # [a, b]: people who prefer a to b
    ties = len(rankings) - better - better.T
    won = better > np.maximum(better.T, ties)
    standing = won.sum(axis=1) - won.sum(axis=0)
    return tuple((1 + (standing > standing[:, None]).sum(axis=1)).tolist())
