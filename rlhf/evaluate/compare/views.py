"""Verdicts on two models, from a judge's comparisons, a reward model's scores or people's labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import sha256_of
from rlhf.artifacts.manifest import manifest_of, require_stage
from rlhf.artifacts.run_folder import short_names
from rlhf.config.flag_values import Dtype
from rlhf.data.encode import Encoder
from rlhf.data.formats import parse
from rlhf.data.packing import trees_of
from rlhf.data.readers import locate, read_rows
from rlhf.data.records import Ranking
from rlhf.data.sources import placed
from rlhf.data.tokenizer import load_tokenizer
from rlhf.errors import DataError
from rlhf.evaluate.answers.generation import EMPTY, AnswerSet, Generations
from rlhf.evaluate.compare.statistics import Verdicts
from rlhf.evaluate.geval.judging import JudgeResults
from rlhf.evaluate.reward.accuracy import outcome
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.models.scoring import scoring_model, trained_length, tree_scores

TRAINED_ON = (
    "{name} was trained against this reward model: the score shows what training optimised, not whether the answers "
    "are better."
)


def judge_verdicts(judged: JudgeResults, generations: Generations) -> Verdicts:
    """A win takes the same verdict in both orders, or a tie in one of them; opposite verdicts are a tie."""
    decided: list[list[tuple[float, float, float]]] = []  # outcome, points, length
    for group, lengths in zip(judged.rows, length_gaps(generations), strict=True):
        decided.append([])
        for row, length in zip(group, lengths, strict=True):
            if row.scores is not None:
                forward, backward = row.comparisons[0].verdicts
                points = sum(row.scores[1]) - sum(row.scores[0])
                decided[-1].append((outcome(-(forward + backward)), points / len(judged.criteria), length))
            elif "equal" in row.problem:
                decided[-1].append((0.5, 0.0, length))
    outcomes, gaps, all_lengths = ([[each[part] for each in group] for group in decided] for part in range(3))
    bias = judged.report.get("opposite_verdicts")
    notes = [f"In {bias:.0%} of the pairs the two orders gave opposite verdicts; these count as ties."] if bias else []
    return Verdicts("judge", judged.judge, outcomes, all_lengths, gaps, "points per criterion", tuple(notes))


def reward_folder(reward: str) -> str:
    """The model's folder. Raises ModelError for one that cannot be read, ArtifactError for one not made by stage 2."""
    path = artifact_model_path(reward)
    check_model_path(path, key="--reward")
    require_stage(path, "reward", key="--reward")
    return path


def reward_verdicts(generations: Generations, reward: str, dtype: Dtype = "auto") -> Verdicts:
    """The higher score wins, equal scores tie. Every answer is scored with EOS, as in training.

    Raises: ModelError for a folder that cannot be read; ArtifactError for one that stage 2 did not make.
    """
    path = reward_folder(reward)
    tokenizer = load_tokenizer(path)
    model = scoring_model(path, dtype)
    samples = len(generations.sets[0].answers[0])
    rankings = [
        Ranking(prompt.messages, texts, (1,) * len(texts))
        for number, prompt in enumerate(generations.prompts)
        for texts in [
            tuple(
                each.answers[number][sample].strip() or EMPTY for sample in range(samples) for each in generations.sets
            )
        ]
    ]
    scores = tree_scores(model, trees_of(Encoder(tokenizer, trained_length(path)).rankings(rankings)))
    gaps = [[each[place + 1] - each[place] for place in range(0, len(each), 2)] for each in scores]
    outcomes = [[outcome(gap) for gap in group] for group in gaps]
    notes = [TRAINED_ON.format(name=each.name) for each in generations.sets if trained_against(each, path)]
    return Verdicts(
        "reward", short_names([reward])[0], outcomes, length_gaps(generations), gaps, "reward units", tuple(notes)
    )


def trained_against(model: AnswerSet, reward: str) -> bool:
    """Whether the reward model is among the parents of the model or of its parents, by hash or by path."""
    manifest = manifest_of(artifact_model_path(model.path))
    if manifest is None:
        return False
    digest = sha256_of(Path(reward)) if Path(reward).is_dir() else ""
    waiting: list[tuple[str, dict[str, Any]]] = list(manifest.get("parents", {}).items())
    while waiting:
        role, parent = waiting.pop()
        same_path = Path(parent["path"]).resolve() == Path(reward).resolve()
        if role == "reward" and (same_path or (digest and parent.get("sha256") == digest)):
            return True
        waiting += parent.get("parents", {}).items()
    return False


def label_verdicts(labels: str, generations: Generations) -> Verdicts:
    """People's rankings of both models' answers: rows {prompt, responses, ranks, models}, one per judgement or merged.

    Raises: DataError, naming the line, for a bad row, and for a file without a row of both models.
    """
    first, second = generations.sets
    found = label_outcomes(labels, (first, second))
    if not found:
        raise DataError(
            f"no row holds answers of both {first.name} and {second.name}",
            where=labels,
            expected="rows {prompt, responses, ranks, models}",
            fix="label with: rlhf evaluate compare ... --label",
        )
    return Verdicts("people", "", [each for each, _ in found.values()], [each for _, each in found.values()])


def label_outcomes(labels: str, models: tuple[AnswerSet, AnswerSet]) -> dict[str, tuple[list[float], list[float]]]:
    """Outcomes for the second model and its answers' lengths minus the first's, by prompt, of every row that ranks
    answers of both. Raises: DataError, naming the line, for a bad row."""
    known = {name: number for number, each in enumerate(models) for name in (each.name, each.path)}
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line, row in read_rows(locate(labels)):
        if isinstance(row, DataError):
            raise row
        named = row.get("models")
        if not isinstance(named, list):
            continue
        places = {known[name]: place for place, name in enumerate(named) if name in known}
        if len(places) == 2:
            outcomes, lengths = found.setdefault(repr(row.get("prompt")), ([], []))
            won, length = _labelled(row, places, f"{labels}:{line}")
            outcomes.append(won)
            lengths.append(length)
    return found


def _labelled(row: Any, places: dict[int, int], where: str) -> tuple[float, float]:
    try:
        ranking = parse(row, "ranking", "")
    except DataError as error:
        raise placed(error, where) from None
    assert isinstance(ranking, Ranking)
    first, second = places[0], places[1]
    won = outcome(ranking.ranks[first] - ranking.ranks[second])
    return won, float(len(ranking.responses[second].strip()) - len(ranking.responses[first].strip()))


def length_gaps(generations: Generations) -> list[list[float]]:
    """Characters of the second model's answers minus the first's, [P][K]."""
    first, second = generations.sets
    return [
        [float(len(after.strip()) - len(before.strip())) for before, after in zip(mine, theirs, strict=True)]
        for mine, theirs in zip(first.answers, second.answers, strict=True)
    ]


def equal_answers(generations: Generations) -> Sequence[bool]:
    """Whether the first answers of both models are the same, by prompt."""
    first, second = generations.sets
    return [
        (mine[0].strip() or EMPTY) == (theirs[0].strip() or EMPTY)
        for mine, theirs in zip(first.answers, second.answers, strict=True)
    ]
