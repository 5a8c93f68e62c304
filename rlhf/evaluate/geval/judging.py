"""Answers of several models judged by one or more language models, every pair in both orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlhf.curate.answer_rows import AnswerRow, prompt_value
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.judge.command import gives_logprobs, usable_rows
from rlhf.curate.judge.criteria import CriteriaSet
from rlhf.curate.judge.pairwise import JudgedRow, JudgeSettings, judge_rows
from rlhf.curate.judge.scores import JudgeReport
from rlhf.curate.output import progress
from rlhf.errors import ConfigError
from rlhf.evaluate.answers.generation import EMPTY, Generations


@dataclass(frozen=True, slots=True)
class JudgeName:
    """A judge: the address of its service, and its model name there."""

    url: str
    model: str


OpenEndpoint = Callable[[JudgeName], Endpoint]


def judge_names(given: Sequence[str]) -> list[JudgeName]:
    """Judges written URL=MODEL. Raises ConfigError for another form, and for a judge named twice."""
    found = []
    for text in given:
        url, separator, model = text.rpartition("=")
        if not separator or not model or not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"is {text!r}", where="--judge", expected="URL=MODEL", fix="--judge http://127.0.0.1:8000/v1=my-judge"
            )
        found.append(JudgeName(url, model))
    if len(set(found)) < len(found):
        raise ConfigError("the same judge twice", where="--judge", fix="name each judge once")
    return found


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """The judges, their criteria and settings; `weigh` uses token probabilities where a judge returns them."""

    judges: Sequence[JudgeName]
    opened: OpenEndpoint
    criteria: CriteriaSet
    settings: JudgeSettings
    weigh: bool


@dataclass(frozen=True, slots=True)
class JudgeResults:
    """One judge's scores of every prompt and sample [P][K]; `report` has its position bias."""

    judge: str
    criteria: tuple[str, ...]
    rows: list[list[JudgedRow]]
    report: dict[str, Any]

    def score_rows(self, generations: Generations, name: str) -> Iterator[dict[str, Any]]:
        """A row per judged answer, as `rlhf evaluate judge --from-scores` reads it."""
        for prompt, group in zip(generations.prompts, self.rows, strict=True):
            for row in group:
                for number, points in enumerate(row.scores or []):
                    yield {
                        "prompt": prompt_value(prompt.messages),
                        "response": row.row.responses[number],
                        "scores": [round(each, 4) for each in points],
                        "criteria": list(self.criteria),
                        "model": generations.sets[number].name,
                        "set": name,
                        "judge": self.judge,
                    }

    @property
    def num_unreadable(self) -> int:
        """Rows without scores because no reply could be read."""
        return sum("equal" not in row.problem for group in self.rows for row in group if row.scores is None)

    @property
    def num_equal(self) -> int:
        """Rows that were not judged because all answers are equal."""
        return sum("equal" in row.problem for group in self.rows for row in group if row.scores is None)


def judge_answers(generations: Generations, panel: JudgePanel, answers_file: Path) -> list[JudgeResults]:
    """Each judge's scores of all answers, prompt by prompt. Judges run one after another; replies are cached.

    Args:
        answers_file: the answers as rows, for the request that finds out whether a judge returns token probabilities.

    Raises: EndpointError or BudgetError; replies so far are then in the endpoint's cache.
    """
    found = []
    for judge, label in zip(panel.judges, judge_labels(panel.judges), strict=True):
        settings, rows = panel.settings, usable_rows(str(answers_file), "skip")
        if panel.weigh and gives_logprobs(partial(panel.opened, judge), rows, panel.criteria, settings):
            settings = replace(settings, weighting="logprobs")
        with panel.opened(judge) as endpoint:
            found.append(_judged(generations, label, endpoint, panel.criteria, settings))
    return found


def judge_labels(judges: Sequence[JudgeName]) -> list[str]:
    """The model's name, with its address where two judges share it."""
    models = [judge.model for judge in judges]
    return [judge.model if models.count(judge.model) == 1 else f"{judge.model} at {judge.url}" for judge in judges]


def _judged(
    generations: Generations, label: str, endpoint: Endpoint, criteria: CriteriaSet, settings: JudgeSettings
) -> JudgeResults:
    rows = list(_rows(generations))
    report = JudgeReport(criteria.names)
    judged = judge_rows(rows, criteria, endpoint, settings, report)
    flat = list(progress(judged, f"judging by {label}", len(rows)))
    size = len(generations.sets[0].answers[0])
    grouped = [flat[start : start + size] for start in range(0, len(flat), size)]
    about = {
        "judge": label,
        "endpoint": endpoint.url,
        "model": endpoint.model,
        "settings": asdict(settings),
        **report.as_dict(),
        "usage": asdict(endpoint.usage),
    }
    return JudgeResults(label, criteria.names, grouped, about)


def _rows(generations: Generations) -> Iterator[AnswerRow]:
    """A row per prompt and sample, with that sample of every model."""
    for number, prompt in enumerate(generations.prompts):
        for sample in range(len(generations.sets[0].answers[number])):
            texts = tuple(each.answers[number][sample].strip() or EMPTY for each in generations.sets)
            yield AnswerRow(prompt.messages, texts, prompt.source, {})
