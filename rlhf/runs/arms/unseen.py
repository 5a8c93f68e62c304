"""Whether the judge and the held-out prompts are apart from what the arms learn from, by the rows themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rlhf.artifacts.manifest import manifest_of
from rlhf.curate.row_texts import normalised
from rlhf.data.embedded import data_path
from rlhf.data.records import Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError
from rlhf.evaluate.reward.leakage import TrainingRows, last_question, training_rows
from rlhf.runs.arms.plan import ArmsPlan

Row = tuple[str, frozenset[str]]  # the question of a ranking, and its answers


def require_unseen(plan: ArmsPlan) -> None:
    """Refuses a judge that learns from an arm's rankings, and held-out prompts that a model was trained on.

    Finished models are checked by the files of their manifests; those that cannot be read are named in a warning.

    Raises: DataError, naming the key, with one of the rows.
    """
    given, reward = plan.config.judge.model, plan.config.reward.model
    finished = {run: training_rows(manifest_of(run)) for run in (plan.config.sft, reward, given) if run}
    arms = _rows(str(plan.preferences)) | (_keys(finished[reward].rankings) if reward else set())
    judge = _keys(finished[given].rankings) if given else _rows(plan.judge_data)
    if given and not judge:
        sys.stderr.write(f"warning: what {given} learned from cannot be read, so it may be what the arms learn from\n")
    if shared := judge & arms:
        raise DataError(
            f"{len(shared):,} of the judge's {len(judge):,} rankings are also the arms': {min(shared)[0][:80]}",
            where="judge.model" if given else "judge.data",
            expected="rankings that no arm learns from",
            fix="name other rankings, or leave judge.model and judge.data empty",
        )
    learned = {asked for asked, _ in judge | arms}.union(*(_questions_of(run, rows) for run, rows in finished.items()))
    if plan.config.prompts:
        learned |= _questions(plan.config.prompts, None)
    if seen := _questions(plan.config.held_out.prompts, plan.config.held_out.limit) & learned:
        raise DataError(
            f"{len(seen):,} prompts are also in training data: {min(seen)[:80]}",
            where="held_out.prompts",
            expected="prompts that neither the SFT model, nor an arm, nor the judge learns from",
            fix="divide the data with rlhf data split, and name the dev or test file here",
        )


def _questions_of(run: str, rows: TrainingRows) -> set[str]:
    if rows.unread:
        reasons = "; ".join(rows.unread)
        sys.stderr.write(
            f"warning: not all that {run} was trained on can be read ({reasons}): held-out prompts may be in it\n"
        )
    return rows.questions


def _rows(path: str) -> set[Row]:
    return _keys(read_records(DataSource(data_path(path)), Ranking, on_bad_row="skip").records)


def _keys(rankings: Iterable[Ranking]) -> set[Row]:
    return {(last_question(each.prompt), frozenset(map(normalised, each.responses))) for each in rankings}


def _questions(path: str, limit: int | None) -> set[str]:
    source = DataSource(data_path(path), limit=limit)
    return {last_question(each.messages) for each in read_records(source, Prompt, on_bad_row="skip").records}
