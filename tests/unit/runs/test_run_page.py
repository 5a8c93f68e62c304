"""A run folder as a page: what it says first, what it draws, and what it cannot be made of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.artifacts.files import write_json
from rlhf.artifacts.run_folder import RunFolder
from rlhf.cli import main
from rlhf.config.load import dump_config
from rlhf.config.stages import STAGES
from rlhf.evaluate.control_group import control_card
from rlhf.runs.plots import MAX_POINTS, curves_of, panel_plots, trajectory
from rlhf.runs.record import differences, read_run
from rlhf.runs.report.verdict import stage_finding

REWARD, KL = "objective/reward", "objective/kl"
CONFIGS: dict[str, dict[str, Any]] = {
    "sft": {"train": {"lr": 3e-4}, "data": {"train": ["a.jsonl", "b.jsonl"]}},
    "reward": {},
    "ppo": {"reward": {"path": "runs/reward"}},
}
H2 = ("answers", "chain", "data", "settings")
H3 = ("Control group", "Tripwires", "Curves")
SOURCE = {"role": "train", "name": "대화", "format": "chat", "sha256": "0123456789abcdef", "num_rows": 9, "num_kept": 8}


def run_folder(path: Path, stage: str, *, metrics: list[dict[str, Any]], **state: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    config = STAGES[stage].config.model_validate(CONFIGS[stage])
    (path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    parents = {"actor": {"path": "runs/sft<1>", "sha256": "fedcba9876543210", "stage": "sft"}}
    write_json(
        path / "manifest.json", {"stage": stage, "parents": parents, "data": [SOURCE], "packages": {"torch": "2"}}
    )
    write_json(path / "state.json", {"status": "finished", "stage": stage, "step": 2, "reason": "", **state})
    write_lines(path / "metrics.jsonl", metrics)
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def ppo_run(tmp_path: Path) -> Path:
    metrics = [
        {"step": step, REWARD: step / 2, KL: 3.0 * step, "reward_by_source/model": 1.0, "lr": 1e-6, "time/step_s": 1.0}
        for step in (1, 2, 3)
    ]
    path = run_folder(tmp_path / "ppo", "ppo", metrics=metrics)
    answers = [
        {
            "step": step,
            "prompt": "뭐 해요?",
            "answer": f"<b>답 {step}</b>",
            "score": step,
            "finished": step > 1,
            "source": "생활",
        }
        for step in (1, 2, 3)
    ]
    write_lines(path / "samples.jsonl", answers)
    trip = {"step": 2, "wire": "kl", "value": 6.0, "limit": 5.0, "action": "warn", "text": "KL is 6 & more."}
    write_lines(path / "tripwires.jsonl", [trip])
    write_lines(path / "abandoned.jsonl", [{"step": 3, KL: 99.0, "rollback": 1}])
    scores = np.random.default_rng(0).normal(size=(20, 4))
    write_json(path / "control.json", control_card(scores, scores[:, :1] + 2, [4.0] * 20, best_of=[4], decoding={}))
    return path


def page_of(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}/report.html\n"
    return (path / "report.html").read_text(encoding="utf-8")


def test_a_ppo_run(ppo_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = page_of(ppo_run, capsys)
    control, tripwires, curves = (page.index(f'<span lang="en">{title}</span></h3>') for title in H3)
    answers, chain, data, settings = (page.index(f'<h2 id="{name}"') for name in H2)
    verdict = page.index('class="verdict good"')
    assert verdict < page.index('<h2 id="ppo"') < control < tripwires < curves < answers < chain < data < settings
    assert "The policy scores better than the model it started from: +2.000" in page
    assert "KL is 6 &amp; more." in page
    assert "not watched: wireheading (no tripwires.held_out_reward)" in page
    assert "best-of-4" in page
    assert "<td>reward.path</td><td>runs/reward</td>" in page
    assert "runs/sft&lt;1&gt;" in page
    assert "<code>fedcba987654</code>" in page
    assert "<td><b>대화</b></td>\n<td>ppo: train</td>\n<td>8 / 9</td>" in page
    # the first answer and the last, as text; the one between is left out
    assert "&lt;b&gt;답 1&lt;/b&gt;" in page
    assert "&lt;b&gt;답 <mark>3&lt;/b&gt;</mark>" in page
    assert "답 2" not in page
    assert '>step 1</span><span class="tag">+1.00</span>' in page
    assert page.count('<span lang="en">no EOS</span>') == 1
    assert not any(word in page for word in ("src=", "<link"))  # nothing is fetched


def test_marks_and_what_was_taken_back_are_in_the_panels_they_belong_to(ppo_run: Path) -> None:
    record = read_run(ppo_run)
    with_all = {panel.title.en: plot for panel, plot in panel_plots(record.metrics, record.trips, record.abandoned)}
    plain = {panel.title.en: plot for panel, plot in panel_plots(record.metrics, [], [])}
    assert list(plain) == ["Reward", "KL to the reference", "Learning rate"]  # nothing without figures
    assert with_all["Reward"] == plain["Reward"]
    assert with_all["KL to the reference"].count(">kl<") == 1
    assert ">kl<" not in plain["KL to the reference"]


def test_a_run_without_a_control_group_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_folder(tmp_path / "r", "ppo", metrics=[{"step": 1, REWARD: -1.0, KL: 0.0}, {"step": 2, REWARD: 1.5}])
    page = page_of(path, capsys)
    assert "There is no control group: whether the policy is better than the SFT model is not known." in page
    assert "went from -1.000 to 1.500" in page
    assert "None tripped." in page
    assert "There is no control group (control.json)." in page
    assert "No answer was logged (samples.jsonl)." in page
    assert "r: the control group" in page  # of what is missing; other stages are none of this run's business
    assert "A run of Stage 1" not in page


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"status": "failed", "reason": "the loss is nan"}, "The run is failed: the loss is nan. There is no control"),
        ({"status": "running"}, "The run is killed. There is no control"),
        (
            {"reason": "Tripwire kl stopped the run."},
            "Tripwire kl stopped the run. There is no control group:",
        ),
    ],
)
def test_what_kept_a_run_from_its_end_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: dict[str, str], expected: str
) -> None:
    page = page_of(run_folder(tmp_path / "r", "ppo", metrics=[], **state), capsys)
    assert re.search(f'<p class="verdict"><span lang="ko">[^<]*</span><span lang="en">{re.escape(expected)}', page)


def test_a_run_that_a_process_holds_is_running(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "r", "ppo", metrics=[], status="running")
    with RunFolder(path).locked():
        finding = stage_finding(read_run(path))
    assert finding.tone == "bad"
    assert finding.words.en.startswith("The run is running. There is no control group")
    assert finding.words.ko.startswith("실행 상태는 ‘실행 중’입니다. 대조군이 없어")


def test_a_good_result_of_a_run_that_was_stopped_is_open(ppo_run: Path) -> None:
    assert stage_finding(read_run(ppo_run)).tone == "good"
    state = {"status": "finished", "stage": "ppo", "step": 2, "reason": "made from step-0002"}
    write_json(ppo_run / "state.json", state)
    finding = stage_finding(read_run(ppo_run))
    assert finding.tone == "open"
    assert finding.words.en.startswith("made from step-0002. By the reward PPO trained on: The policy scores better")


def test_stage_1_reports_its_best_held_out_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = [{"eval/loss_before": 4.0}, {"eval/loss": 2.5}, {"eval/loss": 2.75}]
    metrics = [{"step": step, "loss": 3.0, **row} for step, row in enumerate(losses, start=1)]
    page = page_of(run_folder(tmp_path / "r", "sft", metrics=metrics), capsys)
    assert "Held-out loss 2.500 nats per token at step 2 (4.000 before training). It ended at 2.750" in page
    assert "<td>data.train</td><td>a.jsonl, b.jsonl</td>" in page


def test_stage_2_reports_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_folder(tmp_path / "r", "reward", metrics=[{"step": 1, "loss": 0.7, "reward_model/accuracy": 0.5}])
    each = {"accuracy": 0.75, "low": 0.6, "high": 0.9, "num_pairs": 30}
    shortcuts = {"beats_shortcuts": True, "verdict": "It beats the longer answer."}
    card = {**each, "neighbours": each, "by_source": {"생활": each}, "longer_answer": each, "shortcuts": shortcuts}
    (path / "model").mkdir()
    write_json(path / "model" / "report_card.json", card)
    page = page_of(path, capsys)
    assert "0.750 [0.600, 0.900] of 30 held-out pairs in the right order. It beats the longer answer." in page
    assert '<span lang="en">source: 생활</span></td><td>0.750</td><td>0.600 – 0.900</td>\n<td>30</td>' in page
    assert f"rlhf evaluate reward --model {path}" in page
    write_json(path / "model" / "report_card.json", {"num_rankings": 0})
    assert "No held-out pairs were scored" in page_of(path, capsys)


def test_only_what_differs_from_the_defaults_is_listed(tmp_path: Path) -> None:
    record = read_run(run_folder(tmp_path / "r", "sft", metrics=[]))
    assert [key for key, _, _ in differences(record)] == ["data.train", "train.lr"]
    assert next(row for row in differences(record) if row[0] == "train.lr")[1] == "0.0003"


def test_a_broken_last_line_is_skipped_and_long_curves_are_averaged(tmp_path: Path) -> None:
    path = run_folder(
        tmp_path / "r", "sft", metrics=[{"step": step, "loss": float(step % 2)} for step in range(1, 1201)]
    )
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1201, "lo')
    steps, values = curves_of(read_run(path).metrics)["loss"]
    assert len(steps) == len(values) == MAX_POINTS
    assert (steps[0], values[0]) == (2.5, 0.5)  # of 1 to 4


def test_the_way_is_of_held_out_prompts_where_there_are_two_points() -> None:
    rows = [{KL: 0.0, REWARD: 1.0}, {KL: 2.0, REWARD: 3.0, "eval/reward": 2.0}]
    assert trajectory(rows)[0] == [(0.0, 1.0), (2.0, 3.0)]
    assert trajectory([*rows, {KL: 4.0, REWARD: 5.0, "eval/reward": 6.0}])[0] == [(2.0, 2.0), (4.0, 6.0)]
    assert trajectory(rows[:1])[0] == []


@pytest.mark.parametrize("stage", ["", "other"])
def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str) -> None:
    if stage:
        (tmp_path / "config.yaml").write_text("{}", encoding="utf-8")
        write_json(tmp_path / "state.json", {"stage": stage})
    assert main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert ("is of stage 'other'" if stage else "holds no config.yaml") in error
