"""`rlhf data judge`: ranks the answers of a file by a judge model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from rlhf.config.flag_values import BAD_ROW
from rlhf.config.flags import flag
from rlhf.curate.answer_rows import AnswerRow, prompt_value, read_answer_rows
from rlhf.curate.endpoint.budget import Budget
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.options import EndpointOptions, answers_cache
from rlhf.curate.judge.criteria import CriteriaSet, load_criteria
from rlhf.curate.judge.pairwise import JudgedRow, JudgeSettings, comparison_request, judge_rows
from rlhf.curate.judge.rankings import MIN_SHARE, ranked
from rlhf.curate.judge.scores import JudgeReport, pairs_of
from rlhf.curate.output import Output, progress
from rlhf.data.embedded import data_path
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError, EndpointError

_REJECTED = ("status 400", "status 422")  # the reply of a service that does not know a field


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What is judged by which model, and which pairs are kept."""

    source: str = flag(..., "what `rlhf data sample` wrote, or any ranking file", name="--in", metavar="FILE")
    endpoint: str = flag(..., "chat endpoint, e.g. http://127.0.0.1:8000/v1", metavar="URL")
    model: str = flag(..., "the judge, by its name at the endpoint", metavar="NAME")
    out: Path = flag(..., "rankings to write (JSONL)", metavar="FILE")
    criteria: str = flag("conversation", "a shipped set or a YAML file", metavar="NAME")
    keep: Literal["rankings", "margins"] = flag(
        "rankings", "drop pairs that tie or are low, or keep all pairs with their scores for train.margin=scores"
    )
    min_sum: float | None = flag(
        None, "a pair is low when both sums are below this (default: two thirds of the highest sum, 20 of 30)"
    )
    min_gap: float = flag(0.0, "sums that differ by at most this many points tie", least=0)
    limit: int | None = flag(None, "only the first N usable rows", least=1)
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    def least_sum(self, criteria: CriteriaSet) -> float:
        """The points below which both answers of a pair make it worthless."""
        if self.keep == "margins":
            return 0.0
        return MIN_SHARE * criteria.highest_sum if self.min_sum is None else self.min_sum

    def rows(self, output: Output | None = None) -> Iterator[AnswerRow]:
        """The usable rows up to the limit; dropped rows are counted in `output`."""
        return usable_rows(data_path(self.source), self.on_bad_row, self.limit, output)


def run(options: JudgeOptions, settings: JudgeSettings, service: EndpointOptions) -> int:
    """Estimates the work, judges, and reports the position bias and self-agreement of the judge."""
    criteria, budget = load_criteria(options.criteria), Budget(service)

    def opened() -> Endpoint:
        return Endpoint(options.endpoint, options.model, service, budget=budget, cache=answers_cache(options.out))

    rows, comparisons, cost = estimate(options, criteria, settings, budget)
    if settings.weighting == "auto":
        weighted = gives_logprobs(opened, options.rows(), criteria, settings)
        settings = replace(settings, weighting="logprobs" if weighted else "samples")
    sys.stderr.write(f"{_announced(rows, comparisons, cost, settings)}\n")
    with opened() as endpoint:
        output, report = judge_file(options, criteria, settings, endpoint, rows)
        usage = endpoint.usage.described()
    again = f"; {report.asked_again} requested again for their form" if report.asked_again else ""
    verdict = verdict_on_judge(report, criteria.highest_sum)
    sys.stderr.write(f"{output.summary()}\n{verdict}\n{usage}{again}\n")
    return 0


def usable_rows(
    path: str, on_bad_row: OnBadRow = "error", limit: int | None = None, output: Output | None = None
) -> Iterator[AnswerRow]:
    """The first `limit` usable rows of a file; dropped rows and answers are counted in `output`.

    Raises: DataError at the first bad row with on_bad_row="error".
    """
    taken = 0
    for row in read_answer_rows(path):
        if taken == limit:
            return
        if isinstance(row, AnswerRow):
            taken += 1
            if output is not None:
                output.count("empty answers dropped", row.num_empty)
            yield row
        elif on_bad_row == "error":
            raise row
        elif output is not None:
            output.drop("bad row", row.render().splitlines()[0])


def estimate(
    options: JudgeOptions, criteria: CriteriaSet, settings: JudgeSettings, budget: Budget
) -> tuple[int, int, float]:
    """Rows, comparisons (each pair in both orders), and the most that one reply to each comparison can cost.

    Reads the whole file before any request.

    Raises: DataError at the first bad row where such rows stop the run, and for a file without any usable row.
    """
    rows, comparisons, cost = 0, 0, 0.0
    for row in options.rows():
        rows += 1
        for pair in pairs_of(len(row.distinct), settings.pairs):
            comparisons += 2
            if budget.limits.price_in or budget.limits.price_out:
                cost += 2 * budget.worst_cost(comparison_request(row, pair, criteria, settings))
    if not rows:
        raise DataError("no row can be judged", where=options.source, expected="rows with two answers or more")
    return rows, comparisons, cost


def _announced(rows: int, comparisons: int, cost: float, settings: JudgeSettings) -> str:
    """What the user sees before any further request is paid for."""
    to_pay = f", at most {cost * settings.replies:.2f} to pay" if cost else ""
    replies = "1 reply" if settings.replies == 1 else f"{settings.replies} replies"
    how = "weighted by token probabilities" if settings.weighting == "logprobs" else "averaged"
    return (
        f"{rows} rows, {comparisons * settings.replies} requests{to_pay}: each pair in both orders, {replies} each, "
        f"scores {how}; a form that cannot be read is requested again"
    )


def gives_logprobs(
    open_endpoint: Callable[[], Endpoint], rows: Iterable[AnswerRow], criteria: CriteriaSet, settings: JudgeSettings
) -> bool:
    """Whether an endpoint returns token probabilities, tested by one request (the first of the judging).

    The endpoint is opened for this test alone, because an endpoint that rejects a request sends no further ones.
    """
    row = next((row for row in rows if len(row.distinct) > 1), None)
    if row is None:
        return False
    weighted = replace(settings, weighting="logprobs")
    with open_endpoint() as endpoint:
        try:
            answer = endpoint.complete(comparison_request(row, (0, 1), criteria, weighted))
        except EndpointError as error:
            if error.problem.startswith(_REJECTED):
                return False
            raise
    return any(token.top for token in answer.logprobs)


def judge_file(
    options: JudgeOptions, criteria: CriteriaSet, settings: JudgeSettings, endpoint: Endpoint, total: int
) -> tuple[Output, JudgeReport]:
    """Judges `total` rows and writes those with a training pair as rankings, with the manifest.

    Raises: as `estimate`, and EndpointError or BudgetError; replies so far are then in the endpoint's cache.
    """
    recorded = {
        **asdict(settings),
        "criteria": criteria.name,
        "min_sum": options.least_sum(criteria),
        **{name: getattr(options, name) for name in ("endpoint", "model", "keep", "min_gap", "limit", "on_bad_row")},
    }
    report = JudgeReport(criteria.names)
    inputs = [data_path(options.source)]
    with Output(options.out, command="data judge", inputs=inputs, options=recorded) as output:
        judged = judge_rows(options.rows(output), criteria, endpoint, settings, report)
        for each in progress(judged, f"judging by {options.model}", total):
            _write(each, output, criteria, options)
        output.extra = {
            "judge": report.as_dict(),
            "usage": asdict(endpoint.usage),
            "criteria": criteria.model_dump(mode="json"),
        }
    return output, report


def verdict_on_judge(report: JudgeReport, highest_sum: int) -> str:
    """The position bias and the self-agreement of the judge, in two lines."""
    figures = report.statistics()
    if not figures:
        return "no pair was judged in both orders"
    error = figures["first_minus_second_standard_error"]
    spread = "" if error is None else f" (standard error {error:.2f})"
    return (
        f"position bias: the answer shown first gets {figures['first_minus_second']:+.2f} of {highest_sum} points"
        f"{spread}; first won {figures['first_won']}, second {figures['second_won']}, tied {figures['tied']}\n"
        f"self-agreement: {figures['same_verdict_in_both_orders']:.1%} of {figures['pairs_in_both_orders']} pairs have "
        f"the same verdict in both orders, {figures['opposite_verdicts']:.1%} the opposite one"
    )


def _write(judged: JudgedRow, output: Output, criteria: CriteriaSet, options: JudgeOptions) -> None:
    row = judged.row
    if judged.scores is None:
        output.drop(judged.problem, row.prompt[-1].content)
        return
    sums = [sum(points) for points in judged.scores]
    found = ranked(sums, min_sum=options.least_sum(criteria), min_gap=options.min_gap)
    output.count_all({"pairs": found.kept_pairs, "tied pairs": found.tied_pairs, "low pairs": found.low_pairs})
    if found.problem:
        output.drop(found.problem, row.prompt[-1].content)
        return
    by_criterion = {
        name: [round(points[place], 4) for points in judged.scores] for place, name in enumerate(criteria.names)
    }
    output.write(
        {
            "prompt": prompt_value(row.prompt),
            "responses": list(row.responses),
            "ranks": list(found.ranks),
            "scores": [round(each, 4) for each in sums],
            "judged": {"model": options.model, "criteria": criteria.name, "points": by_criterion},
            **row.per_answer,
            "source": row.source,
        }
    )
