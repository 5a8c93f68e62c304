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
from rlhf.evaluate.reward.leakage import last_question, training_questions, training_rankings
from rlhf.runs.arms.plan import ArmsPlan

Row = tuple[str, frozenset[str]]  # the question of a ranking, and its answers


def require_unseen(plan: ArmsPlan) -> None:
    """Refuses a judge that learns from an arm's rankings, and held-out prompts that a model was trained on.

    Finished models are checked by the files of their manifests; those that cannot be read are named in a warning.

    Raises: DataError, naming the key, with one of the rows.
    """
    arms = _rows(str(plan.preferences)) | (_trained_on(plan.config.reward.model) if plan.config.reward.model else set())
    given = plan.config.judge.model
    judge = _trained_on(given) if given else _rows(plan.judge_data)
    if given and not judge:
        sys.stderr.write(f"warning: what {given} learned from cannot be read, so it may be what the arms learn from\n")
    if shared := judge & arms:
        raise DataError(
            f"{len(shared):,} of the judge's {len(judge):,} rankings are also the arms': {min(shared)[0][:80]}",
            where="judge.model" if given else "judge.data",
            expected="rankings that no arm learns from",
            fix="name other rankings, or leave judge.model and judge.data empty",
        )
    finished = (plan.config.sft, plan.config.reward.model, plan.config.judge.model)
    learned = {asked for asked, _ in judge | arms}.union(*(_learned_by(run) for run in finished if run))
    if plan.config.prompts:
        learned |= _questions(plan.config.prompts, None)
    if seen := _questions(plan.config.held_out.prompts, plan.config.held_out.limit) & learned:
        raise DataError(
            f"{len(seen):,} prompts are also in training data: {min(seen)[:80]}",
            where="held_out.prompts",
            expected="prompts that neither the SFT model, nor an arm, nor the judge learns from",
            fix="divide the data with rlhf data split, and name the dev or test file here",
        )


def _learned_by(run: str) -> set[str]:
    found, unread = training_questions(manifest_of(run))
    if unread:
        reasons = "; ".join(unread)
        sys.stderr.write(
            f"warning: not all that {run} was trained on can be read ({reasons}): held-out prompts may be in it\n"
        )
    return found


def _rows(path: str) -> set[Row]:
    return _keys(read_records(DataSource(data_path(path)), Ranking, on_bad_row="skip").records)


def _trained_on(run: str) -> set[Row]:
    return _keys(training_rankings(manifest_of(run)))


def _keys(rankings: Iterable[Ranking]) -> set[Row]:
    return {(last_question(each.prompt), frozenset(map(normalised, each.responses))) for each in rankings}


def _questions(path: str, limit: int | None) -> set[str]:
    source = DataSource(data_path(path), limit=limit)
    return {last_question(each.messages) for each in read_records(source, Prompt, on_bad_row="skip").records}
