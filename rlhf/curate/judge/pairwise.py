"""Pairwise G-Eval: every pair in both orders, unreadable replies requested again, scores averaged.

    for judged in judge_rows(rows, criteria, endpoint, settings, report):
        judged.scores  # [K][C] points, or None with judged.problem

A judge sees two answers and scores both by every criterion, so a pair costs two requests (times `samples`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rlhf.config.flags import flag
from rlhf.curate.answer_rows import AnswerRow
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import ChatAnswer, EndpointRequest, TokenLogprob
from rlhf.curate.judge.criteria import CriteriaSet
from rlhf.curate.judge.form import FormError, comparison_messages, read_form, reminder
from rlhf.curate.judge.scores import JudgeReport, Pairs, PairScores, answer_scores, expected_score, pairs_of

BLOCK_REQUESTS = 512  # answered before unreadable replies are requested again
TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge is asked.

    weighting: "logprobs" takes the mean score under the token probabilities of one reply at temperature 0; "samples"
        averages `samples` replies at `temperature`; "auto" is resolved before the judging, and else means "samples".
    """

    weighting: Literal["auto", "logprobs", "samples"] = flag(
        "auto", "mean score under the token probabilities, or over several replies; auto tries one request"
    )
    samples: int = flag(5, "replies to average without probabilities", least=1)
    temperature: float = flag(1.0, "temperature of those replies", metavar="T")
    max_tokens: int = flag(2048, "longest reply", least=1)
    pairs: Pairs = flag(
        "all", "of K answers judge all K(K-1)/2 pairs, or a ring of K pairs in which each answer meets two others"
    )
    form_retries: int = flag(2, "how often to ask again for unreadable scores", least=0)

    @property
    def replies(self) -> int:
        """Replies per order of a pair."""
        return 1 if self.weighting == "logprobs" else self.samples


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A row with the points [K][C] of its answers, or None and the `problem`."""

    row: AnswerRow
    scores: list[list[float]] | None
    comparisons: tuple[PairScores, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class _Task:
    """One request for the points of two answers in one order, and the points [2, C] once they are read."""

    shown: tuple[int, int]
    request: EndpointRequest
    points: np.ndarray | None = None


_Block = list[tuple[AnswerRow, list[_Task]]]  # rows that are judged together, each with its requests


def judge_rows(
    rows: Iterable[AnswerRow],
    criteria: CriteriaSet,
    endpoint: Endpoint,
    settings: JudgeSettings,
    report: JudgeReport,
) -> Iterator[JudgedRow]:
    """Judges rows in order, a block of requests at a time, and updates `report`.

    Equal answers of a row are judged once. A row has no scores where all its answers are equal, or where some order
    of some pair got no readable reply.

    Raises: EndpointError, BudgetError from the endpoint.
    """
    block: _Block = []
    for row in rows:
        pairs = pairs_of(len(row.distinct), settings.pairs)
        tasks = [
            _Task(shown, comparison_request(row, shown, criteria, settings, sample))
            for one, other in pairs
            for shown in ((one, other), (other, one))
            for sample in range(settings.replies)
        ]
        block.append((row, tasks))
        if sum(len(tasks) for _, tasks in block) >= BLOCK_REQUESTS:
            yield from _judged(block, criteria, endpoint, settings, report)
            block = []
    yield from _judged(block, criteria, endpoint, settings, report)


def comparison_request(
    row: AnswerRow, shown: tuple[int, int], criteria: CriteriaSet, settings: JudgeSettings, sample: int = 0
) -> EndpointRequest:
    """The request for the scores of two distinct answers of a row, in the order shown."""
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


def _judged(
    block: _Block, criteria: CriteriaSet, endpoint: Endpoint, settings: JudgeSettings, report: JudgeReport
) -> Iterator[JudgedRow]:
    waiting = [task for _, tasks in block for task in tasks]
    for attempt in range(settings.form_retries + 1):
        report.asked_again += len(waiting) if attempt else 0
        answers = endpoint.complete_all(task.request for task in waiting)
        for task, answer in zip(waiting, answers, strict=True):
            report.replies += 1
            _read(task, answer, criteria, report)
        waiting = [task for task in waiting if task.points is None]
    report.given_up += len(waiting)
    for row, tasks in block:
        yield _judged_row(row, tasks, report)


def _read(task: _Task, answer: ChatAnswer, criteria: CriteriaSet, report: JudgeReport) -> None:
    """Reads the scores of a reply into the task; for an unreadable reply, prepares the next request."""
    try:
        written = read_form(answer.text, criteria)
    except FormError as problem:
        asked = task.request.messages[:2]  # without an earlier reminder
        task.request = replace(task.request, messages=reminder(criteria, asked, answer.text, str(problem)))
        return

    def weighted(score: int, place: int) -> float:
        expected = _score_at(answer.text, place, answer.logprobs)
        report.scores_weighted += expected is not None
        report.scores_as_written += expected is None
        return float(score) if expected is None else expected

    task.points = np.array([[weighted(*mark) for mark in marks] for marks in written]).T


def _score_at(text: str, place: int, tokens: Sequence[TokenLogprob]) -> float | None:
    """The expected score of the digit at character `place`; None where no token consists of that digit alone.

    Tokens that hold part of a Hangul syllable have no text of their own, so the digit is located by counting digits.
    """
    digits = sum(character.isdecimal() for character in text[:place])
    for token in tokens:
        inside = 0 if token.token.startswith("bytes:") else sum(map(str.isdecimal, token.token))
        if inside and digits < inside:
            same = token.token.strip() == text[place]
            return expected_score({token.token: token.logprob, **dict(token.top)}) if same else None
        digits -= inside
    return None


def _judged_row(row: AnswerRow, tasks: Sequence[_Task], report: JudgeReport) -> JudgedRow:
    replies: dict[tuple[int, int], list[np.ndarray]] = {task.shown: [] for task in tasks}
    for task in tasks:
        if task.points is not None:
            replies[task.shown].append(task.points)
    if not replies:
        return JudgedRow(row, None, problem="all answers are equal")
    if not all(replies.values()):
        return JudgedRow(row, None, problem="the judge's reply cannot be read")
    means = {shown: np.mean(found, axis=0) for shown, found in replies.items()}
    comparisons = tuple(
        PairScores(one, other, np.array([points, means[other, one]]))
        for (one, other), points in means.items()
        if one < other
    )
    report.pairs += [each.points for each in comparisons]
    scores = dict(zip(row.distinct, answer_scores(len(row.distinct), comparisons), strict=True))
    return JudgedRow(row, [scores[response] for response in row.responses], comparisons)
