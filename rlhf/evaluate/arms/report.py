"""The report of several arms: figures by arm, comparisons, votes, the verdict; as JSON, Markdown, a page and text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.artifacts.files import write_json, write_text
from rlhf.config.arms import SFT
from rlhf.evaluate.answers.measures import MEASURES, differences
from rlhf.evaluate.arms.judging import JudgedArm, JudgedArms
from rlhf.evaluate.arms.plot import quality_plot
from rlhf.evaluate.arms.statistics import all_pairs
from rlhf.evaluate.arms.trained import FINISHED, Trained
from rlhf.evaluate.arms.verdict import Standing, decide, text
from rlhf.evaluate.intervals import SHARE, SHARE_DIFFERENCE, Figure, mean_figure
from rlhf.html.plots import in_both
from rlhf.html.templates import render
from rlhf.html.words import Words, joined, same

SHOWN = 40  # prompts whose answers the page holds
HEADLINE = ("polite", "rude", "refused", "eos", "distinct2")  # measures in the table, beside on_topic
GOOD = ("polite", "eos", "distinct2", "on_topic")  # less of them is worse
BAD = ("rude", "hateful", "refused", "empty")  # more of them is worse
TITLES = {name: Words(known.korean, known.title) for name, known in MEASURES.items()}
TITLES |= {"on_topic": text("arms.measure.on_topic")}


def figures_of(arm: JudgedArm) -> dict[str, Any]:
    """An arm's figures, as arms.json holds them: means, and every measure with its interval."""
    reward, kl = mean_figure(arm.scores), mean_figure(arm.kl)
    measures = _measures(arm)
    return {
        "reward": reward["mean"],
        "interval": _ends(reward),
        "kl": kl["mean"],
        "kl_interval": _ends(kl),
        **{name: measures[name]["mean"] for name in HEADLINE},
        "on_topic": measures["on_topic"]["mean"] if "on_topic" in measures else None,
        "measures": measures,
    }


def _ends(figure: Figure) -> list[float]:
    return [figure["mean"] if math.isnan(end) else end for end in (figure["low"], figure["high"])]


def worse_measures(before: JudgedArm, after: JudgedArm) -> list[Words]:
    """Measures whose paired 95 % interval lies on the bad side of 0, not corrected, with both figures."""
    gaps = dict(differences(before.measured, after.measured))
    if before.on_topic is not None and after.on_topic is not None:
        gaps["on_topic"] = mean_figure(after.on_topic - before.on_topic, SHARE_DIFFERENCE)
    found = [name for name in GOOD if gaps.get(name, {"high": 0.0})["high"] < 0]
    found += [name for name in BAD if gaps[name]["low"] > 0]
    shares = [_measures(each) for each in (before, after)]
    return [joined([TITLES[name], same(" → ".join(f"{each[name]['mean']:.1%}" for each in shares))]) for name in found]


def _measures(arm: JudgedArm) -> dict[str, Figure]:
    topic = {} if arm.on_topic is None else {"on_topic": mean_figure(arm.on_topic, SHARE)}
    return {**arm.measured.figures(), **topic}


def arms_report(
    trained: Mapping[str, Trained], answered: JudgedArms | None, *, judge: str, interrupted: bool
) -> dict[str, Any]:
    """The whole report.

    Args:
        trained: every arm in the order of the configuration, the SFT model first.
        answered: those that are finished; None where nothing was judged.
        judge: folder of the reward model that judged.
    """
    judged = answered.arms if answered is not None else {}
    votes = answered.votes if answered is not None else ()
    arms = {
        name: {**(figures_of(judged[name]) if name in judged else {}), **each.as_dict()}
        for name, each in trained.items()
    }
    comparisons = all_pairs({name: each.scores for name, each in judged.items()}) if len(judged) > 1 else []
    standing = Standing(
        {name: mean_figure(each.scores) for name, each in judged.items()},
        comparisons,
        {name: float(np.mean(each.kl)) for name, each in judged.items()},
        {name: sum(each.seconds.values()) for name, each in trained.items()},
        {name: worse_measures(judged[SFT], each) for name, each in judged.items() if name != SFT},
        votes,
        {name: each.status for name, each in trained.items() if each.status != FINISHED},
        interrupted,
    )
    decision = decide(standing)
    return {
        "arms": arms,
        "comparisons": [each.as_dict() for each in comparisons],
        "votes": [each.as_dict() for each in votes],
        "verdict": {
            "outcome": decision.outcome,
            "arm": decision.arm,
            "prompts_needed": decision.needed,
            **decision.sentence._asdict(),
        },
        "judge": judge,
        **(answered.generations.about() if answered is not None else {}),
    }


HEAD = (
    Words("방법", "arm"),
    Words("점수", "score"),
    Words("KL(nats)", "KL, nats"),
    TITLES["polite"],
    TITLES["on_topic"],
    TITLES["rude"],
    TITLES["refused"],
    TITLES["distinct2"],
    TITLES["eos"],
    Words("초", "seconds"),
    Words("학습 토큰", "tokens trained"),
    Words("샘플링 토큰", "tokens sampled"),
)


def table_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """A row of text per arm under HEAD; an arm without figures has its status in their place."""
    return [[name, *_cells(arm)] for name, arm in report["arms"].items()]


def _cells(arm: Mapping[str, Any]) -> list[str]:
    spent = [f"{arm['seconds']:,.0f}", *(f"{arm['tokens'].get(kind, 0):,}" for kind in ("trained", "sampled"))]
    costs = spent if arm["budget"] else ["–"] * len(spent)
    if "reward" not in arm:
        return [arm["status"], *["–"] * 7, *costs]
    shares = [arm[name] for name in ("polite", "on_topic", "rude", "refused", "distinct2", "eos")]
    low, high = arm["interval"]
    score = f"{arm['reward']:.2f} [{low:.2f}, {high:.2f}]"
    return [score, f"{arm['kl']:.2f}", *("–" if share is None else f"{share:.1%}" for share in shares), *costs]


def write_arms_report(report: Mapping[str, Any], answered: JudgedArms | None, out: Path) -> None:
    """Writes arms.json (by arm), report.json (all), arms.md and arms.html into `out`."""
    values = {"report": report, "head": HEAD, "rows": table_rows(report)}
    write_json(out / "arms.json", report["arms"])
    write_json(out / "report.json", report)
    write_text(out / "arms.md", render("evaluate/arms/table.md.j2", **values))
    plot = in_both(partial(quality_plot, report["arms"])) if answered is not None else None
    generations = answered.generations if answered is not None else None
    page = {"plot": plot, "generations": generations, "shown": SHOWN, "measures": MEASURES}
    write_text(out / "arms.html", render("evaluate/arms/page.html.j2", **values, **page))
