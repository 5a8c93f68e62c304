"""The page of a comparison, from outcomes and answers."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.records import Message, Prompt
from rlhf.evaluate.answers.command import generation_report
from rlhf.evaluate.answers.generation import AnswerSet, Generations
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.compare.command import page_values, views
from rlhf.evaluate.compare.statistics import Verdicts
from rlhf.html.templates import render

PROMPTS = [Prompt((Message("user", f"<b>{what}</b> 어때?"),), "일상") for what in ("비", "눈", "밥")]
SFT, PPO = ["네 좋아.", "네 추워.", "네 먹어."], ["네 좋아요.", "네 추워요.", "네 먹어요."]


@pytest.fixture
def generations() -> Generations:
    sets = [
        AnswerSet(name, f"runs/{name}", "0", [[text] for text in texts], [[True]] * 3)
        for name, texts in (("sft", SFT), ("ppo", PPO))
    ]
    return Generations(PROMPTS, sets, {"seed": 17, "temperature": 1.0}, 0)


def report_of(generations: Generations, verdicts: list[Verdicts]) -> dict[str, Any]:
    report = generation_report(generations, [None, None])
    return report | views(verdicts, generations, report)


def page_of(report: dict[str, Any], generations: Generations, verdicts: list[Verdicts], shown: int) -> str:
    return render("evaluate/compare/page.html.j2", report=report, **page_values(generations, verdicts, shown))


def test_the_judges_verdict_colours_the_answers(generations: Generations) -> None:
    """Win, tie, undecided: two decided prompts, 1.5 wins of 2."""
    judge = Verdicts("judge", "<m>", [[1.0], [0.5], []], [[1.0], [1.0], []], notes=("a <note>",))
    report = report_of(generations, [judge])
    page = page_of(report, generations, [judge], shown=2)
    assert '<span lang="en">judge</span> &lt;m&gt;</td>\n<td>1 / 1 / 0</td>' in page
    assert "<td>75.0% <small>" in page
    assert "one is always longer" in page
    assert page.count('class="said won"') == page.count('class="said lost"') == 1
    assert page.count('class="pair"') == 2
    assert "1 more prompts are in answers.jsonl" in page
    assert "<div>네 <mark>좋아요.</mark></div>" in page
    assert "<div>네 <mark>좋아.</mark></div>" in page
    assert "&lt;b&gt;비&lt;/b&gt; 어때?" in page
    assert "<br>a &lt;note&gt;" in page
    assert "Preferred: by the judge &lt;m&gt;." in page
    assert "note: a <note>" in render("evaluate/compare/summary.txt.j2", report=report, measures=MEASURES)


def test_people_and_a_view_that_decided_nothing(generations: Generations) -> None:
    """People's verdicts colour no answer. Three wins of three: Wilson's interval starts at 3 / 6.84146 = .4385."""
    people = Verdicts("people", "", [[1.0]] * 3, [[1.0], [-1.0], [2.0]])
    silent = Verdicts("reward", "rm", [[], [], []], [[], [], []])
    page = page_of(report_of(generations, [people]), generations, [people], shown=3)
    assert "<td>100.0% <small>[43.9%, 100.0%]</small></td>" in page
    assert "said won" not in page
    assert "Preferred" not in page
    report = report_of(generations, [silent])
    assert "nobody decided" in page_of(report, generations, [silent], shown=3)
    assert report["outcome"] == "unknown"
    # one character more in each; politeness differs in all three too, but u = .5615 for 0 of 3: 1 - 2 u is below 0
    assert report["sentence"]["ko"].endswith("글이 뚜렷이 다른 점: 길이.")


def test_a_win_by_the_models_own_reward_is_not_green(generations: Generations) -> None:
    outcomes, gaps = [[1.0]] * 3, [[2.0], [2.5], [3.0]]
    for notes, green in ((("ppo was trained against this reward model.",), False), ((), True)):
        reward = Verdicts("reward", "rm", outcomes, [[1.0]] * 3, gaps, "reward units", notes)
        report = report_of(generations, [reward]) | {"outcome": "better"}
        page = page_of(report, generations, [reward], shown=1)
        assert ('class="verdict good"' in page) == green
        assert ("이 보상 모델로 학습한 모델이 있습니다" in page) != green
