"""The report of several arms from answers and scores made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlhf.artifacts.files import read_json, write_text
from rlhf.data.records import Message, Prompt
from rlhf.errors import DataError
from rlhf.evaluate.answers.generation import AnswerSet, Generations
from rlhf.evaluate.answers.measures import measure
from rlhf.evaluate.arms.judging import JudgedArm, JudgedArms
from rlhf.evaluate.arms.report import arms_report, table_rows, worse_measures, write_arms_report
from rlhf.evaluate.arms.trained import Trained
from rlhf.evaluate.arms.votes import vote_comparisons, write_label_rows

NUMBER = 12
PROMPTS = [Prompt((Message("user", f"<b>비{number}</b> 와?"),), "날씨") for number in range(NUMBER)]
SPREAD = np.tile([-1.0, 1.0], NUMBER // 2)
SAID = {"sft": "비 와.", "dpo": "비 와요.", "ppo": "모르겠어요."}


def judged_arm(name: str, scores: np.ndarray, kl: float, topic: float) -> JudgedArm:
    texts = [[f"{SAID[name]}"] for number in range(NUMBER)]
    finished = [[True]] * NUMBER
    answered = AnswerSet(name, f"runs/{name}", "0", texts, finished)
    return JudgedArm(answered, scores, np.full(NUMBER, kl), measure(texts, finished), np.full(NUMBER, topic))


@pytest.fixture
def judged() -> dict[str, JudgedArm]:
    return {
        "sft": judged_arm("sft", SPREAD, 0.0, 1.0),
        "dpo": judged_arm("dpo", SPREAD + 1, 2.0, 1.0),
        "ppo": judged_arm("ppo", SPREAD + 3, 5.0, 0.0),
    }


@pytest.fixture
def generations(judged: dict[str, JudgedArm]) -> Generations:
    return Generations(PROMPTS, [each.answered for each in judged.values()], {"seed": 17, "temperature": 1.0}, 0)


TRAINED = {
    "sft": Trained(),
    "dpo": Trained(
        "finished", {"steps": 10, "rows_per_step": 8, "answers": 0}, {"train": 12.0}, {"train": 20.0}, {"trained": 5000}
    ),
    "ppo": Trained(
        "finished",
        {"steps": 3, "rows_per_step": 128, "answers": 384},
        {"reward": 30.0, "train": 70.0},
        {"reward": 55.0, "train": 130.0},
        {"trained": 9000, "sampled": 4000},
    ),
}


def test_arms_json_holds_what_is_asked_of_each_arm(
    tmp_path: Path, judged: dict[str, JudgedArm], generations: Generations
) -> None:
    report = arms_report(TRAINED, JudgedArms(generations, judged), judge="runs/judge", interrupted=False)
    write_arms_report(report, JudgedArms(generations, judged), tmp_path)
    arms = read_json(tmp_path / "arms.json")
    assert list(arms) == ["sft", "dpo", "ppo"]
    ppo = arms["ppo"]
    assert (ppo["reward"], ppo["kl"], ppo["polite"], ppo["on_topic"], ppo["seconds"]) == (3.0, 5.0, 1.0, 0.0, 100.0)
    assert (ppo["cpu_seconds"], ppo["cpu_seconds_by_part"]) == (185.0, {"reward": 55.0, "train": 130.0})
    assert ppo["interval"][0] < 3 < ppo["interval"][1]
    assert arms["sft"]["polite"] == 0.0
    assert report["verdict"]["outcome"] == "one"
    assert report["verdict"]["arm"] == "ppo"
    assert "Worse than the SFT model: refusals" not in report["verdict"]["en"]
    assert "on topic" in report["verdict"]["en"]  # PPO's answers are beside the question
    assert [(each["of"], each["minus"]) for each in report["comparisons"]] == [
        ("dpo", "sft"),
        ("ppo", "sft"),
        ("ppo", "dpo"),
    ]


def test_the_page_and_the_table_show_every_arm(
    tmp_path: Path, judged: dict[str, JudgedArm], generations: Generations
) -> None:
    report = arms_report(TRAINED, JudgedArms(generations, judged), judge="runs/judge", interrupted=False)
    write_arms_report(report, JudgedArms(generations, judged), tmp_path)
    page = (tmp_path / "arms.html").read_text(encoding="utf-8")
    assert 'class="verdict good"' in page
    assert page.count("<svg") > 3  # the plot in both languages, and intervals
    assert "reward 30 + train 70" in page
    assert "reward 55 + train 130" in page
    assert "ppo − dpo" in page
    assert page.count(">ppo</text>") == 2  # the legend of the plot in both languages
    assert "runs/judge" in page
    assert "runs/dpo" in page
    assert "&lt;b&gt;비0&lt;/b&gt;" in page
    assert report["verdict"]["ko"].partition("(")[0] in page
    table = (tmp_path / "arms.md").read_text(encoding="utf-8")
    assert "| dpo | 1.00 [" in table
    assert "| 100.0% | – | – | – |" in table  # the SFT model cost nothing here
    assert report["verdict"]["en"] in table
    assert report["verdict"]["ko"] in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {13}


def test_an_interrupted_report_has_states_and_costs_and_no_figures(tmp_path: Path) -> None:
    trained = {**TRAINED, "ppo": Trained("preempted", TRAINED["ppo"].budget, {"train": 20.0})}
    report = arms_report(trained, None, judge="runs/judge", interrupted=True)
    write_arms_report(report, None, tmp_path)
    assert report["verdict"]["outcome"] == "interrupted"
    assert "ppo (preempted)" in report["verdict"]["en"]
    assert table_rows(report)[2][:3] == ["ppo", "preempted", "–"]
    assert "reward" not in read_json(tmp_path / "arms.json")["dpo"]
    assert "Interrupted" in (tmp_path / "arms.html").read_text(encoding="utf-8")


def test_what_became_worse_is_told_by_its_side(judged: dict[str, JudgedArm]) -> None:
    assert [each.en for each in worse_measures(judged["sft"], judged["ppo"])] == ["on topic 100.0% → 0.0%"]
    assert worse_measures(judged["sft"], judged["dpo"]) == []  # more polite
    assert [each.en for each in worse_measures(judged["dpo"], judged["sft"])] == ["polite sentences 100.0% → 0.0%"]


def label(models: list[str], ranks: list[int], number: int) -> str:
    row = {
        "prompt": f"<b>비{number}</b> 와?",
        "responses": [SAID[name] for name in models],
        "ranks": ranks,
        "models": models,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def test_votes_of_every_pair_that_was_ranked(tmp_path: Path, generations: Generations) -> None:
    """ppo above sft on 9 prompts, tied on 1: (9 + .5) / 10 - .5 = .45; dpo above ppo on 2: .5 - 1."""
    file = tmp_path / "labels.jsonl"
    rows = [label(["sft", "ppo"], [2, 1], number) for number in range(9)] + [label(["ppo", "sft"], [1, 1], 9)]
    rows += [label(["dpo", "ppo"], [1, 2], number) for number in range(10, 12)]
    write_text(file, "".join(rows))
    found = {each.pair: each for each in vote_comparisons(str(file), generations)}
    assert found.keys() == {("sft", "ppo"), ("dpo", "ppo")}
    assert found["sft", "ppo"].mean == pytest.approx(0.45)
    assert found["sft", "ppo"].num_prompts == 10
    assert found["dpo", "ppo"].mean == pytest.approx(-0.5)
    write_text(file, label(["sft", "ppo"], [1, 2], 1).replace("ppo", "other"))
    with pytest.raises(DataError, match="no row ranks two of sft, dpo, ppo"):
        vote_comparisons(str(file), generations)


@pytest.mark.parametrize(("old", "new"), [("비1</b>", "눈1</b>"), ("ANSWER", "다른 답이에요.")])
def test_votes_on_answers_of_another_comparison_are_refused(
    tmp_path: Path, generations: Generations, old: str, new: str
) -> None:
    file = tmp_path / "labels.jsonl"
    other = label(["sft", "ppo"], [2, 1], 1).replace(SAID["ppo"] if old == "ANSWER" else old, new)
    write_text(file, label(["sft", "ppo"], [2, 1], 0) + other)
    with pytest.raises(DataError, match=r"labels.jsonl:2[\s\S]*label that file") as caught:
        vote_comparisons(str(file), generations)
    assert "did not give to this prompt here" in str(caught.value)


def test_rows_to_label_hold_every_arm(tmp_path: Path, generations: Generations) -> None:
    file = tmp_path / "label.jsonl"
    generations.sets[1].answers[3][0] = generations.sets[2].answers[3][0] = generations.sets[0].answers[3][0]
    assert write_label_rows(generations, file) == NUMBER - 1
    first = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert (first["models"], first["responses"]) == (["sft", "dpo", "ppo"], list(SAID.values()))
