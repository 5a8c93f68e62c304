"""Runs of a project on one page: what is linked to what, what the verdict rests on, and what is named as missing."""

from __future__ import annotations

import json
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any

import pytest

from rlhf import evaluate, runs
from rlhf.artifacts.files import write_json
from rlhf.cli import main
from rlhf.config.load import dump_config
from rlhf.config.stages import STAGES
from rlhf.errors import ArtifactError
from rlhf.html.texts import Texts
from rlhf.runs.plots import panels
from rlhf.runs.project import (
    parents_of,
    read_project,
    replaced_parents,
    sources_of,
    starting_point,
    trained_and_held_out,
)
from rlhf.runs.record import read_run
from rlhf.runs.report.answers import answers_of_project
from rlhf.runs.report.page import render_project, render_run
from rlhf.runs.report.verdict import headline, missing, weak_points

CONFIGS: dict[str, dict[str, Any]] = {"sft": {"data": {"train": ["a.jsonl"]}}, "reward": {}, "ppo": {}, "dpo": {}}
PAIRS = {"low": 0.8, "high": 0.96, "num_pairs": 40}
CARD = {
    "accuracy": 0.9,
    **PAIRS,
    "neighbours": {"accuracy": 0.8, **PAIRS},
    "by_source": {"생활": {"accuracy": 0.9, **PAIRS}},
    "longer_answer": {"accuracy": 0.6, **PAIRS},
    "calibration": {"ece": 0.25, "reliability": [{"num_pairs": 40, "confidence": 0.7, "accuracy": 0.9}]},
    "shortcuts": {
        "beats_shortcuts": False,
        "best_baseline": "longer_answer",
        "model_minus_best": {"difference": -0.1, "low": -0.2, "high": 0.1},
        "baselines": {},
        "verdict": "The model does not beat its shortcuts.",
    },
}
OUTCOMES = ("better", "worse", "unknown")
ARM = {"low": 0.5, "high": 1.5}
CONTROL = {
    "num_prompts": 40,
    "reference": {"mean": 0.0, **ARM, "kl": 0.0},
    "policy": {"mean": 1.0, **ARM, "kl": 5.0},
    "policy_minus_reference": {"mean": 1.0, **ARM, "prompts_for_80_percent_power": 9},
    "best_of_n": [{"n": 4, "mean": 0.8, **ARM, "kl": 0.6}, {"n": 16, "mean": 1.2, **ARM, "kl": 1.8}],
    "outcome": "better",
    "verdict": "The policy scores better.",
}


def source(name: str, role: str = "train", digest: str = "") -> dict[str, Any]:
    return {"role": role, "name": name, "format": "chat", "sha256": digest or name * 8, "num_rows": 9, "num_kept": 8}


def run(path: Path, stage: str, parents: dict[str, Any], data: list[dict[str, Any]], **state: Any) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(
        dump_config(STAGES[stage].config.model_validate(CONFIGS[stage])), encoding="utf-8"
    )
    write_json(path / "manifest.json", {"stage": stage, "parents": parents, "data": data, "packages": {"torch": "2"}})
    write_json(path / "state.json", {"status": "finished", "stage": stage, "step": 2, "reason": "", **state})
    lines(path / "metrics.jsonl", [{"step": step, "loss": 3.0 - step, "eval/loss": 3.0 - step} for step in (1, 2)])
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three stages in a folder that was moved since they ran: their manifests name another place."""
    folder, talks, ranks = tmp_path / "q", [source("talks")], [source("ranks"), source("dev", "eval")]
    base = {"base": {"path": "base<1>/model", "sha256": "b" * 64}}
    made = {"path": "old/sft/model", "sha256": "5" * 64, "stage": "sft", "data": talks, "parents": base}
    judge = {
        "path": "old/reward/model",
        "sha256": "6" * 64,
        "stage": "reward",
        "data": ranks,
        "parents": {"base": made},
    }
    run(folder / "sft", "sft", base, talks)
    run(folder / "reward", "reward", {"base": made}, ranks)
    roles = {"actor": made, "reference": made, "reward": judge, "critic": judge}
    run(folder / "ppo", "ppo", roles, [source("dev", "eval")])
    (folder / "reward" / "model").mkdir()
    write_json(folder / "reward" / "model" / "report_card.json", CARD)
    write_json(folder / "ppo" / "control.json", CONTROL)
    lines(folder / "sft" / "samples.jsonl", [{"step": 2, "prompt": "뭐 해?", "answer": "<i>쉬어</i>"}])
    asked = [
        {"step": 1, "prompt": "뭐 해?", "answer": "옛 답"},
        {"step": 2, "prompt": "뭐 해?", "answer": "쉬고 있어요."},
    ]
    lines(folder / "ppo" / "samples.jsonl", [*asked, {"step": 2, "prompt": "배고파", "answer": "드세요."}])
    return folder


def comparison(folder: Path, outcome: str = "better", **view: Any) -> Path:
    folder.mkdir(parents=True)
    rate = {"mean": 0.75, "low": 0.6, "high": 0.9}
    seen = {"kind": "judge", "name": "m", "wins": 3, "ties": 0, "losses": 1, "notes": [], "win_rate": rate}
    report = {
        "first": "sft",
        "second": "ppo",
        "outcome": outcome,
        "sentence": {"ko": "ppo 쪽이 낫습니다.", "en": "ppo is better."},
        "notes": view.get("notes", []),
        "models": [{"name": name, "path": f"runs/{name}"} for name in ("sft", "ppo")],
        "answers_per_prompt": 2,
        "views": [{**seen, "length_controlled": {"why_not": "always longer"}, **view}],
    }
    write_json(folder / "compare.json", report)
    lines(
        folder / "answers.jsonl",
        [{"prompt": [{"role": "user", "content": "안녕"}], "responses": ["가", "나", "다", "라"]}],
    )
    return folder


def test_the_page_of_a_folder_of_runs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison(project / "evaluation" / "cmp")
    assert main(["report", str(project)]) == 0
    assert capsys.readouterr().out == f"{project}/report.html\n"
    page = (project / "report.html").read_text(encoding="utf-8")
    order = [page.index(f'<h2 id="{name}"') for name in ("summary", "chain", "data", "sft", "reward", "ppo")]
    assert order == sorted(order)
    assert order[0] < page.index("ppo is better.") < order[1]
    assert "base&lt;1&gt;" in page
    assert '<li>actor, reference ← <b><a href="#sft">sft</a></b> <code>555555555555</code>' in page
    assert page.count('<li class="follows">') == 3
    assert '<li>reward, critic ← <b><a href="#reward">reward</a></b>' in page
    assert "&lt;i&gt;쉬어&lt;/i&gt;" in page
    assert "쉬고 있어요." in page
    assert "옛 답" not in page  # an earlier answer to the same prompt
    assert "SFT: no answer to this prompt was logged." in page  # 배고파
    assert "75.0% <small>[60.0%, 90.0%]</small>" in page
    answers = page[page.index('<h2 id="answers"') :]
    assert "가" in answers
    assert ">다</div>" in answers  # the second model's first of two
    assert ">나</div>" not in answers
    assert not any(word in page for word in ("src=", "<link", "http-equiv", "url(http"))
    assert page.count('<span lang="ko">') == page.count('<span lang="en">') > 50  # every word in both languages
    assert '<span lang="ko"></span>' not in page
    assert '<span lang="en"></span>' not in page


def test_every_panel_has_both_languages() -> None:
    titles = [panel.title for panel in panels()]
    assert len(titles) == len(set(titles)) > 20
    for panel in panels():
        assert "가" <= panel.title.ko[0] <= "힣" or panel.title.ko.startswith(("KL", "EOS"))
        assert all(text.isascii() and text for text in (panel.title.en, panel.caption.en))
        assert any("가" <= letter <= "힣" for letter in panel.caption.ko)


@pytest.mark.parametrize(
    ("package", "least", "chosen"),  # `chosen`: by a variable
    [
        (runs, 45, ("stage.", "status.", "judge.", "section.", "missing.", "reward.shortcuts.")),
        (
            evaluate,
            18,
            (
                "compare.by.",
                "arms.people.",
                *(f"{what}.{outcome}" for what in ("compare", "control") for outcome in OUTCOMES),
            ),
        ),
    ],
)
def test_every_text_has_the_same_fields_in_both_languages_and_is_used(
    package: ModuleType, least: int, chosen: tuple[str, ...]
) -> None:
    """English that is a module's own sentence ({verdict}, {note}) or stands there alone has none to compare."""
    known = Texts(package.__name__).all
    assert len(known) > least
    for name, words in known.items():
        korean, english = ({field for _, field, _, _ in Formatter().parse(each) if field} for each in words)
        if words.en and not english & {"verdict", "note"}:
            assert korean == english, name
        assert any("가" <= letter <= "힣" for letter in words.ko) or "{" in words.ko, name
        assert words.en.isascii(), name
    folder = Path(package.__path__[0])
    source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert [name for name in known if f'"{name}"' not in source and not name.startswith(chosen)] == []


def test_runs_are_linked_by_path_or_by_name_and_data(project: Path, tmp_path: Path) -> None:
    read = read_project([project])
    assert [each.stage for each in read.runs] == ["sft", "reward", "ppo"]
    first, second, last = read.runs
    assert [(each.path, each.run) for each in parents_of(first, read.runs)] == [("base<1>/model", None)]
    assert [(each.roles, each.run) for each in parents_of(last, read.runs)] == [
        (("actor", "reference"), first),
        (("reward", "critic"), second),
    ]
    assert starting_point(last, read) is first
    run(tmp_path / "other" / "sft", "sft", {}, [source("others")])  # the same name, made of other data
    assert starting_point(last, read_project([project, tmp_path / "other"])) == first
    run(tmp_path / "twin" / "sft", "sft", {}, [source("talks")])
    assert starting_point(last, read_project([project, tmp_path / "twin"])) is None


def test_what_weakens_the_verdict(project: Path) -> None:
    read = read_project([project])
    assert headline(read).tone == "open"
    assert "+1.000 [+0.500, +1.500], 프롬프트 40개" in headline(read).words.ko
    told = [words.en for words in weak_points(read)]
    assert len(told) == 3
    assert "does not beat its shortcuts" in told[0]
    assert "scored by the reward PPO trained on" in told[1]
    assert "Best-of-16" in told[2]  # 1.2 above the policy's 1.0; best-of-4, 0.8, is below


def test_a_clear_verdict_is_good_and_a_comparison_by_its_own_reward_is_not(project: Path) -> None:
    write_json(
        project / "reward" / "model" / "report_card.json",
        CARD | {"shortcuts": {"beats_shortcuts": True, "verdict": "It beats them."}},
    )
    write_json(project / "ppo" / "control.json", CONTROL | {"best_of_n": []})
    comparison(project / "cmp")
    assert weak_points(read_project([project])) == []
    assert headline(read_project([project])).tone == "good"
    comparison(project / "own", kind="reward", notes=["This is the reward model that ppo was trained against."])
    assert [words.en for words in weak_points(read_project([project]))] == [
        "Comparison own: This is the reward model that ppo was trained against."
    ]
    assert headline(read_project([project])).tone == "open"


def test_data_that_is_learnt_and_measured_on_and_a_parent_that_was_replaced(project: Path, tmp_path: Path) -> None:
    read = read_project([project])
    assert [[use.run.stage for use in uses] for uses in sources_of(read.runs)] == [
        ["sft"],
        ["reward"],
        ["reward", "ppo"],
    ]
    assert not any(map(trained_and_held_out, sources_of(read.runs)))
    assert replaced_parents(read.runs) == {}
    changed = {"base": {"path": "old/sft/model", "sha256": "7" * 64, "stage": "sft"}}
    run(tmp_path / "late", "reward", changed, [source("copy", "train", digest="dev" * 8)])
    read = read_project([project, tmp_path / "late"])
    assert [trained_and_held_out(uses) for uses in sources_of(read.runs)] == [False, False, True]
    assert set(replaced_parents(read.runs)["old/sft/model"]) == {"5" * 64, "7" * 64}
    assert any("trained on and measured on" in words.en for words in weak_points(read))
    assert any("was replaced between runs" in words.en for words in weak_points(read))


def test_what_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = run(tmp_path / "q" / "ppo", "ppo", {}, [], status="failed", reason="the loss is nan")
    (tmp_path / "q" / "queued").mkdir()
    write_json(tmp_path / "q" / "queued" / "job.json", {})
    (tmp_path / "q" / "cmp").mkdir()
    write_json(tmp_path / "q" / "cmp" / "compare.json", {"other": 1})
    read = read_project([tmp_path / "q"])
    assert [path.name for path, _ in read.unread] == ["queued", "compare.json"]
    assert "holds no config.yaml" in read.unread[0][1]
    told = [each.words.en for each in missing(read)]
    assert [each for each in told if each.startswith("A run of")] == [
        "A run of Stage 1: supervised fine-tuning",
        "A run of Stage 2: reward model",
    ]
    assert "ppo: the control group" in told
    assert "ppo: sampled answers" in told
    assert "The run is failed: the loss is nan" in headline(read).words.en
    assert main(["report", str(tmp_path / "q")]) == 0
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert page.count("There is no run of this stage.") == 2
    assert "There is no control group (control.json)." in page
    assert "No manifest.json records any data." in page
    assert not (only / "report.html").exists()


def test_dpo_stands_for_the_stages_it_replaces_and_ppo_heads_the_page(project: Path, tmp_path: Path) -> None:
    alone = run(tmp_path / "d" / "dpo", "dpo", {}, [])
    told = [each.words.en for each in missing(read_project([tmp_path / "d"]))]
    assert [each for each in told if each.startswith("A run of")] == ["A run of Stage 1: supervised fine-tuning"]
    lines(alone / "samples.jsonl", [{"step": 2, "prompt": "뭐 해?", "answer": "푹 쉬어요."}])
    both = read_project([project, alone])
    assert starting_point(both.of_stage("dpo")[0], both) == both.of_stage("sft")[0]
    shown = [[row["name"] for row in group.pairs[0].answers] for group in answers_of_project(both)]
    assert shown == [["sft", "dpo"], ["sft", "ppo"]]
    assert [each.stage for each in both.runs] == ["sft", "reward", "dpo", "ppo"]
    assert "The policy scores better than" in headline(both).words.en
    assert "Preference optimisation (DPO)" in render_project(both)
    assert "Preference optimisation (DPO)" not in render_project(read_project([project]))


def test_several_folders_need_a_place_for_the_page(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(project / "sft"), str(project / "ppo")]) == 1
    assert "--out report.html" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="no run in"):
        read_project([comparison(project.parent / "alone")])


def test_a_page_of_many_runs_names_where_the_other_curves_are(project: Path) -> None:
    metrics = [{"step": step, "loss": 3.0 - step, "grad_norm": 1.0} for step in (1, 2)]
    for number in range(4):
        each = run(project / f"more-{number}", "sft", {}, [source("talks")])
        lines(each / "metrics.jsonl", metrics)
    page = render_project(read_project([project]))
    assert page.count("The other curves are on the run&#39;s own page:") == 6  # PPO logged none of its first plots
    assert f"rlhf report {project}/more-0" in page
    assert page.count('<li class="follows">') == 2  # sft below its base, ppo below its reward model
    assert "Gradient norms" not in page
    one = render_run(read_run(project / "more-0"))
    assert "Gradient norms" in one
    assert "1 more curves" in one
    assert '<h2 id="sft">' in one
    assert '<h2 id="reward">' not in one


def test_the_whole_card_of_a_reward_model_is_shown(project: Path) -> None:
    probe = {"accuracy_before": 0.9, "accuracy": 0.8, "low": 0.7, "high": 0.9, "num_pairs": 40}
    seen = {"num_prompts": 1200, "num_prompts_seen": 3, "num_answers": 80, "num_answers_seen": 0, "not_checked": [{}]}
    baselines = {name: {"accuracy": 0.6, **PAIRS} for name in ("longer_answer", "character_ngrams")}
    shortcuts = CARD["shortcuts"] | {"baselines": baselines}
    card = CARD | {"probes": {"half": probe}, "leakage": seen, "shortcuts": shortcuts}
    write_json(project / "reward" / "model" / "report_card.json", card)
    page = render_run(read_run(project / "reward"))
    assert "3 of 1,200 test prompts and 0 of 80 answers occur in training data." in page
    assert "평가 프롬프트 1,200개 중 3개, 답변 80개 중 0개가 학습 데이터에 있습니다." in page
    assert "Not checked: 1." in page
    assert "Score changes under edits of the input" in page
    assert "Expected calibration error 0.250." in page
    assert '<span lang="en">baseline: character n-grams</span></td><td>0.600</td>' in page
    assert '<h2 id="answers"' not in page  # a reward model gives none


def test_rows_and_their_losses_are_counted_by_use(project: Path) -> None:
    both = [source("dev", "eval") | {"num_skipped": 1, "num_tied": 1200}, source("copy", "train", digest="dev" * 8)]
    run(project / "late", "reward", {}, both)
    page = render_project(read_project([project]))
    assert "<td>late: eval</td>\n<td>8 / 9</td>\n<td>skipped 1, tied 1,200</td>" in page
    assert "<b>dev</b><span" in page
    assert '<span lang="en"> (trained on and measured on)</span>' in page


def test_a_comparison_that_nobody_decided(project: Path) -> None:
    folder = comparison(project / "cmp", "unknown", kind="people", name="", notes=["few <labels>"])
    report = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    del report["views"][0]["win_rate"]
    write_json(folder / "compare.json", report)
    page = render_project(read_project([project]))
    assert '<span lang="en">people</span> </td>' in page
    assert "nobody decided" in page
    assert "<li>few &lt;labels&gt;</li>" in page
    write_json(folder / "compare.json", report | {"views": []})
    assert "Nobody judged." in render_project(read_project([project]))
