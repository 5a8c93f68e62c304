"""From a file of answers to a file of rankings, by a judge: what `rlhf data judge` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from rlhf.config.flag_values import BAD_ROW
from rlhf.config.flags import flag
from rlhf.curate.answer_rows import AnswerRow, prompt_value, read_answer_rows
from rlhf.curate.endpoint.budget import Budget
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.judge.criteria import CriteriaSet, load_criteria
from rlhf.curate.judge.pairwise import JudgedRow, JudgeReport, JudgeSettings, comparison_request, judge_rows
from rlhf.curate.judge.rankings import MIN_SHARE, ranked
from rlhf.curate.judge.scores import JudgeStatistics, pairs_of
from rlhf.curate.output import Output, progress
from rlhf.data.embedded import data_path
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError, EndpointError

Keep = Literal["rankings", "margins"]
_REFUSED = ("status 400", "status 422")  # what a service says that does not know a field


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """What is judged by what, and which pairs are kept.

    keep: "rankings" drops pairs that tie or whose sums are both below `min_sum` points (None: two thirds of the
        highest sum); "margins" keeps every pair, for a loss that takes its margin from the scores.
    min_gap: sums this close tie.
    """

    rows: str = flag(..., "output of `rlhf data sample`, or any ranking file", name="--in", metavar="FILE")
    out: Path = flag(..., "rankings to write (JSONL)", metavar="FILE")
    criteria: CriteriaSet = flag(..., "a shipped set or a YAML file", metavar="NAME", parse=load_criteria)
    keep: Keep = flag(
        "rankings", "drop pairs that tie or score low, or keep all pairs with their scores for train.margin=scores"
    )
    min_sum: float | None = flag(
        None, "a pair with both sums below this is dropped (default: two thirds of the highest sum, 20 of 30)"
    )
    min_gap: float = flag(0.0, "sums that differ by at most this tie", least=0)
    limit: int | None = flag(None, "use only the first N usable rows", least=1)
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    @property
    def least_sum(self) -> float:
        """Points below which both answers of a pair make it worthless."""
        if self.keep == "margins":
            return 0.0
        return MIN_SHARE * self.criteria.highest_sum if self.min_sum is None else self.min_sum


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is to judge: rows, comparisons (each pair in both orders), and the most that one reply to each
    can cost, in the currency of the prices."""

    rows: int
    comparisons: int
    most_cost: float

    def described(self, settings: JudgeSettings) -> str:
        """What to tell the user before anything more is paid for."""
        requests = self.comparisons * settings.replies
        cost = f", at most {self.most_cost * settings.replies:.2f} to pay" if self.most_cost else ""
        replies = "1 reply" if settings.replies == 1 else f"{settings.replies} replies"
        how = "weighted by token probabilities" if settings.weighting == "logprobs" else "averaged"
        return (
            f"{self.rows} rows, {requests} requests{cost}: each pair in both orders, {replies} each, scores {how}; "
            "a form that cannot be read is asked for again"
        )


def extent(plan: JudgePlan, settings: JudgeSettings, budget: Budget) -> Extent:
    """Reads the whole file and counts what is to be asked, before anything is.

    Raises: DataError at the first bad row where such rows stop the run, and for a file without one usable row.
    """
    rows, comparisons, cost = 0, 0, 0.0
    for row in _rows(plan, None):
        rows += 1
        for pair in pairs_of(len(row.distinct), settings.pairs):
            comparisons += 2
            if budget.price_in or budget.price_out:
                cost += 2 * budget.worst_cost(comparison_request(row, pair, plan.criteria, settings))
    if not rows:
        raise DataError("no row can be judged", where=plan.rows, expected="rows with two answers or more")
    return Extent(rows, comparisons, cost)


def gives_logprobs(open_endpoint: Callable[[], Endpoint], plan: JudgePlan, settings: JudgeSettings) -> bool:
    """Whether an endpoint sends token probabilities along, by one request (the first of the judging).

    The endpoint is opened for this alone, because one that refuses a request is asked nothing more.
    """
    row = next((row for row in _rows(plan, None) if len(row.distinct) > 1), None)
    if row is None:
        return False
    weighted = replace(settings, weighting="logprobs")
    with open_endpoint() as endpoint:
        try:
            answer = endpoint.complete(comparison_request(row, (0, 1), plan.criteria, weighted))
        except EndpointError as error:
            if error.problem.startswith(_REFUSED):
                return False
            raise
    return any(token.top for token in answer.logprobs)


def judge_file(plan: JudgePlan, settings: JudgeSettings, endpoint: Endpoint, total: int) -> tuple[Output, JudgeReport]:
    """Judges `total` rows and writes those that hold a pair as rankings, with the manifest.

    Raises: as `extent`, and EndpointError or BudgetError; replies so far are then in the endpoint's cache.
    """
    model = endpoint.service.model
    options = {
        **asdict(settings),
        "criteria": plan.criteria.name,
        "endpoint": endpoint.service.url,
        "model": model,
        "keep": plan.keep,
        "min_sum": plan.least_sum,
        "min_gap": plan.min_gap,
        "limit": plan.limit,
        "on_bad_row": plan.on_bad_row,
    }
    report = JudgeReport(JudgeStatistics(plan.criteria.names))
    with Output(plan.out, command="data judge", inputs=[data_path(plan.rows)], options=options) as output:
        judged = judge_rows(_rows(plan, output), plan.criteria, endpoint, settings, report)
        for each in progress(judged, f"judging by {model}", total):
            _write(each, plan, model, output)
        output.extra = {
            "judge": report.as_dict(),
            "usage": asdict(endpoint.usage),
            "criteria": plan.criteria.model_dump(mode="json"),
        }
    return output, report


def verdict_on_judge(report: JudgeReport, highest_sum: int) -> str:
    """What the user has to know of the judge: position bias and self-agreement, two lines."""
    figures = report.statistics.as_dict()
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


def _rows(plan: JudgePlan, output: Output | None) -> Iterator[AnswerRow]:
    """The usable rows up to the limit; what is left out is counted in `output`."""
    taken = 0
    for _, row in read_answer_rows(data_path(plan.rows)):
        if taken == plan.limit:
            return
        if isinstance(row, AnswerRow):
            taken += 1
            if output is not None and row.num_empty:
                output.count("empty answers left out", row.num_empty)
            yield row
        elif plan.on_bad_row == "error":
            raise row
        elif output is not None:
            output.drop("bad row", row.render().splitlines()[0])


def _write(judged: JudgedRow, plan: JudgePlan, model: str, output: Output) -> None:
    row = judged.row
    if judged.scores is None:
        output.drop(judged.problem, row.prompt[-1].content)
        return
    sums = [sum(points) for points in judged.scores]
    found = ranked(sums, min_sum=plan.least_sum, min_gap=plan.min_gap)
    counts = {"pairs": found.kept_pairs, "tied pairs": found.tied_pairs, "low pairs": found.low_pairs}
    for name, count in counts.items():
        if count:
            output.count(name, count)
    if found.why_nothing_is_left:
        output.drop(found.why_nothing_is_left, row.prompt[-1].content)
        return
    by_criterion = {
        name: [round(points[place], 4) for points in judged.scores] for place, name in enumerate(plan.criteria.names)
    }
    output.write(
        {
            "prompt": prompt_value(row.prompt),
            "responses": list(row.responses),
            "ranks": list(found.ranks),
            "scores": [round(each, 4) for each in sums],
            "judged": {"model": model, "criteria": plan.criteria.name, "points": by_criterion},
            **row.about,
            "source": row.source,
        }
    )
