"""G-Eval of answers side by side: every pair in both orders, unreadable replies asked for again, scores averaged.

    for judged in judge_rows(rows, criteria, endpoint, settings, report):
        judged.scores  # [K][C] points, or None with judged.problem

A judge sees two answers and scores both by every criterion, so that a pair costs two requests (times `samples`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rlhf.config.flags import flag
from rlhf.curate.answer_rows import AnswerRow
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import ChatAnswer, EndpointRequest, TokenLogprob
from rlhf.curate.judge.criteria import CriteriaSet
from rlhf.curate.judge.form import FormError, comparison_messages, read_form, reminder
from rlhf.curate.judge.scores import (
    JudgeStatistics,
    Pairs,
    PairScores,
    Reading,
    answer_scores,
    expected_score,
    mean_reading,
    pairs_of,
)

BLOCK_REQUESTS = 512  # judged before replies that could not be read are asked for again
TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge is asked.

    weighting: "logprobs" takes the mean score under the token probabilities of one reply at temperature 0; "samples"
        averages `samples` replies at `temperature`.
    pairs: all pairs of a row's answers, or a ring in which each answer meets two others.
    form_retries: how often an unreadable reply is asked for again.
    """

    weighting: Literal["logprobs", "samples"] = flag(
        "samples",
        "mean score under the token probabilities, or over several replies; auto sends one request to find out whether "
        "the judge returns probabilities",
        choices=("auto", "logprobs", "samples"),
    )
    samples: int = flag(5, "replies to average where there are no probabilities", least=1)
    temperature: float = flag(1.0, "sampling temperature of those replies", metavar="T")
    max_tokens: int = flag(2048, "longest reply in tokens", least=1)
    pairs: Pairs = flag(
        "all", "of K answers judge all K(K-1)/2 pairs, or K pairs in which each answer meets two others"
    )
    form_retries: int = flag(2, "times an unreadable reply is asked for again", least=0)

    @property
    def replies(self) -> int:
        """Replies to each order of a pair."""
        return 1 if self.weighting == "logprobs" else self.samples

    def num_requests(self, row: AnswerRow) -> int:
        """Requests that a row takes when every reply can be read."""
        return 2 * self.replies * len(pairs_of(len(row.distinct), self.pairs))


@dataclass(slots=True)
class JudgeReport:
    """What happened on the way: `statistics` of the places, and counts of replies."""

    statistics: JudgeStatistics
    replies: int = 0
    asked_again: int = 0
    given_up: int = 0
    scores_weighted: int = 0
    scores_as_written: int = 0

    def as_dict(self) -> dict[str, Any]:
        counts = {
            "replies": self.replies,
            "asked_again": self.asked_again,
            "unreadable_after_all": self.given_up,
            "scores_weighted_by_probability": self.scores_weighted,
            "scores_as_written": self.scores_as_written,
        }
        return {**self.statistics.as_dict(), **counts}


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A row with the points [K][C] of its answers; None where `problem` says why there are none."""

    row: AnswerRow
    scores: list[list[float]] | None
    comparisons: tuple[PairScores, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class _Task:
    """One request: two answers in one order, and what has been said about them so far."""

    row: int
    shown: tuple[int, int]
    request: EndpointRequest
    reading: Reading | None = None


@dataclass(slots=True)
class _Block:
    """Rows judged together."""

    rows: list[AnswerRow] = field(default_factory=list)
    tasks: list[_Task] = field(default_factory=list)


def judge_rows(
    rows: Iterable[AnswerRow],
    criteria: CriteriaSet,
    endpoint: Endpoint,
    settings: JudgeSettings,
    report: JudgeReport,
) -> Iterator[JudgedRow]:
    """Judges rows in order, a block of requests at a time; `report` is kept up to date.

    Equal answers of a row are judged once. A row whose answers are all equal, or of which some order of some pair got
    no readable reply, has no scores.

    Raises: EndpointError, BudgetError from the endpoint.
    """
    block = _Block()
    for row in rows:
        for one, other in pairs_of(len(row.distinct), settings.pairs):
            for shown in ((one, other), (other, one)):
                block.tasks += _tasks(len(block.rows), row, shown, criteria, settings)
        block.rows.append(row)
        if len(block.tasks) >= BLOCK_REQUESTS:
            yield from _judged(block, criteria, endpoint, settings, report)
            block = _Block()
    yield from _judged(block, criteria, endpoint, settings, report)


def comparison_request(
    row: AnswerRow, shown: tuple[int, int], criteria: CriteriaSet, settings: JudgeSettings, sample: int = 0
) -> EndpointRequest:
    """The request for scores of two of a row's distinct answers, in the order shown."""
    first, second = (row.distinct[index] for index in shown)
    weighted = settings.weighting == "logprobs"
    return EndpointRequest(
        comparison_messages(criteria, row.prompt, first, second),
        temperature=0.0 if weighted else settings.temperature,
        max_tokens=settings.max_tokens,
        logprobs=weighted,
        top_logprobs=TOP_LOGPROBS if weighted else None,
        sample=sample,
    )


def _tasks(
    row_number: int, row: AnswerRow, shown: tuple[int, int], criteria: CriteriaSet, settings: JudgeSettings
) -> list[_Task]:
    request = comparison_request(row, shown, criteria, settings)
    return [_Task(row_number, shown, replace(request, sample=sample)) for sample in range(settings.replies)]


def _judged(
    block: _Block, criteria: CriteriaSet, endpoint: Endpoint, settings: JudgeSettings, report: JudgeReport
) -> Iterator[JudgedRow]:
    waiting = block.tasks
    for attempt in range(settings.form_retries + 1):
        report.asked_again += len(waiting) if attempt else 0
        answers = endpoint.complete_all(task.request for task in waiting)
        for task, answer in zip(waiting, answers, strict=True):
            report.replies += 1
            _read_into(task, answer, criteria, report)
        waiting = [task for task in waiting if task.reading is None]
    report.given_up += len(waiting)
    by_row: list[list[_Task]] = [[] for _ in block.rows]
    for task in block.tasks:
        by_row[task.row].append(task)
    for row, tasks in zip(block.rows, by_row, strict=True):
        yield _judged_row(row, tasks, settings, report.statistics)


def _read_into(task: _Task, answer: ChatAnswer, criteria: CriteriaSet, report: JudgeReport) -> None:
    """Puts the reply's scores into the task; an unreadable reply becomes the next request instead."""
    try:
        marks = read_form(answer.text, criteria)
    except FormError as problem:
        asked = task.request.messages[:2]  # without an earlier reminder
        task.request = replace(task.request, messages=reminder(criteria, asked, answer.text, str(problem)))
        return

    def weighted(written: int, place: int) -> float:
        score = _score_at(answer.text, place, answer.logprobs)
        report.scores_weighted += score is not None
        report.scores_as_written += score is None
        return float(written) if score is None else score

    task.reading = Reading(
        tuple(weighted(mark.first, mark.first_at) for mark in marks),
        tuple(weighted(mark.second, mark.second_at) for mark in marks),
    )


def _score_at(text: str, place: int, tokens: Sequence[TokenLogprob]) -> float | None:
    """The expected score at the digit at character `place`; None where no token is that digit alone.

    Tokens that hold part of a Hangul syllable have no text of their own, so the digit is found by counting digits.
    """
    digits = sum(character.isdecimal() for character in text[:place])
    for token in tokens:
        inside = 0 if token.token.startswith("bytes:") else sum(map(str.isdecimal, token.token))
        if inside and digits < inside:
            same = token.token.strip() == text[place]
            return expected_score({token.token: token.logprob, **dict(token.top)}) if same else None
        digits -= inside
    return None


def _judged_row(
    row: AnswerRow, tasks: Sequence[_Task], settings: JudgeSettings, statistics: JudgeStatistics
) -> JudgedRow:
    readings: dict[tuple[int, int], list[Reading]] = {}
    for task in tasks:
        readings.setdefault(task.shown, [])
        if task.reading is not None:
            readings[task.shown].append(task.reading)
    if not readings:
        return JudgedRow(row, None, problem="all answers are equal")
    if not all(readings.values()):
        return JudgedRow(row, None, problem="the judge's reply cannot be read")
    means = {shown: mean_reading(found) for shown, found in readings.items()}
    comparisons = tuple(
        PairScores(one, other, means[one, other], means[other, one])
        for one, other in pairs_of(len(row.distinct), settings.pairs)
    )
    for comparison in comparisons:
        statistics.add(comparison)
    points = dict(zip(row.distinct, answer_scores(len(row.distinct), comparisons), strict=True))
    return JudgedRow(row, [points[response] for response in row.responses], comparisons)
