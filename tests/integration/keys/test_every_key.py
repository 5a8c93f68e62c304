"""No key is accepted and ignored: for every key of every stage, another value changes what a run leaves or says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config.keys import key_table
from rlhf.config.metric_names import metric_of, metrics
from rlhf.config.stages import stage_named
from rlhf.data.tokenizer import load_tokenizer
from tests.integration.conftest import RANKINGS, write_rows
from tests.integration.keys.cases import CASES, ELSEWHERE, MORE_METRICS, NEVER_LOGGED
from tests.support.launcher import ENVIRONMENT, REPOSITORY
from tests.support.lora_runs import make_lora_run

pytestmark = pytest.mark.timeout(1500)  # the first test waits for about 330 runs: two to five minutes on 2 cores
STAGES = ("sft", "reward", "ppo")
USUAL = {
    "sft": ["run.max_steps=4"],
    "reward": ["run.max_steps=4", "model.path={sft}"],
    "ppo": ["run.max_steps=2", "actor.path={sft}", "reward.path={reward}", "reward.min_accuracy=null"],
}


def leaf_keys(stage: str) -> set[str]:
    return {name for name, key in key_table(stage_named(stage).config).items() if not key.is_section}


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_has_a_case_or_a_test_elsewhere(stage):
    keys = leaf_keys(stage)
    assert len(keys) > 50
    assert set(CASES[stage]) <= keys
    assert keys - set(CASES[stage]) <= set(ELSEWHERE)


@pytest.mark.parametrize(("key", "place"), sorted(ELSEWHERE.items()))
def test_a_test_elsewhere_is_there(key, place):
    file, _, name = place.partition("::")
    assert any(key in leaf_keys(stage) and key not in CASES[stage] for stage in STAGES)
    assert f"def {name}(" in (REPOSITORY / file).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def places(tmp_path_factory, korean, tiny_neox, chain) -> dict[str, Path]:
    """Models and data files that cases name."""
    folder = tmp_path_factory.mktemp("keys")
    tokenizer = load_tokenizer(str(chain["sft"] / "model"), None)
    found = {"base": tiny_neox, "data": korean, "sft": chain["sft"] / "model", "reward": chain["reward"] / "model"}
    for name, stage, seed in (("sft", "sft", 5), ("reward", "reward", 6)):
        found[f"{name}_lora"] = make_lora_run(tiny_neox, folder / f"{name}_lora", tokenizer, stage=stage, seed=seed)
        found[f"{name}_other"] = found[f"{name}_lora"] / "model"
    found["elsewhere"] = folder / "elsewhere"
    found["other"] = folder / "other"
    shutil.copytree(tiny_neox, found["other"])
    model = AutoModelForCausalLM.from_pretrained(tiny_neox)
    with torch.no_grad():
        model.gpt_neox.embed_in.weight.mul_(0.5)
    model.save_pretrained(found["other"])
    found["other_eos"] = _edited(chain["sft"] / "model", folder / "other_eos", "config.json", eos_token_id=5)
    card = {"accuracy": 0.3, "low": 0.2, "high": 0.4}
    found["reward_poor"] = _edited(chain["reward"] / "model", folder / "reward_poor", "report_card.json", **card)
    return found


def _edited(source: Path, out: Path, name: str, **values: object) -> Path:
    shutil.copytree(source, out)
    path = out / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")
    return out


@pytest.fixture(scope="session")
def rows(korean) -> None:
    """Files beside the usual ones: rows with a bad one, conversations, judged answers."""
    for name in ("sft", "rankings", "prompts"):
        text = (korean / f"{name}_train.jsonl").read_text(encoding="utf-8")
        (korean / f"{name}_bad.jsonl").write_text(text + '{"prompt": ""}\n', encoding="utf-8")
    said = [("user", "비 와요?"), ("assistant", "네, 와요."), ("user", "많이요?"), ("assistant", "조금요.")]
    turns = [{"messages": [{"role": role, "content": text} for role, text in said]}]
    write_rows(korean / "turns.jsonl", turns * 12)
    write_rows(korean / "margin.jsonl", [{**row, "margin": 1} for row in RANKINGS])
    for split in "bc":
        for config in "ad":
            (korean / "hub" / config).mkdir(parents=True, exist_ok=True)
            write_rows(korean / "hub" / config / f"{split}.jsonl", RANKINGS)
    files = "[{split: b, path: %s/b.jsonl}, {split: c, path: %s/c.jsonl}]"
    configs = "".join(f"- config_name: {name}\n  data_files: {files % (name, name)}\n" for name in "ad")
    (korean / "hub" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    write_rows(korean / "scored.jsonl", [{**row, "scores": [9, 5, 1]} for row in RANKINGS])


@pytest.fixture(scope="session")
def observed(tmp_path_factory, configs, places, rows) -> dict[str, dict]:
    """Observation of every run that a case needs, by stage and words; each stage in a process of its own."""
    folder = tmp_path_factory.mktemp("observed")
    wanted = {stage: [words for key in CASES[stage] for words in runs_of(stage, key)] for stage in STAGES}
    more = {stage: [_last_wins([*USUAL[stage], *words]) for words in MORE_METRICS[stage]] for stage in STAGES}
    plans = {stage: sorted({*wanted[stage], *more[stage]}) for stage in STAGES}
    running = []
    for stage, plan in plans.items():
        entries = [[stage, ["--config", str(configs[stage]), *_filled(words, places)]] for words in plan]
        (folder / f"{stage}.json").write_text(json.dumps(entries), encoding="utf-8")
        with (folder / f"{stage}.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.integration.keys.observing"]
            command += [str(folder / f"{stage}.json"), str(folder / f"{stage}.out.json")]
            environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
            running.append(subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log))
    found = {}
    for stage, process in zip(plans, running, strict=True):
        assert process.wait(1200) == 0, (folder / f"{stage}.log").read_text(errors="replace")[-3000:]
        outcomes = json.loads((folder / f"{stage}.out.json").read_text(encoding="utf-8"))
        found[stage] = dict(zip(plans[stage], outcomes, strict=True))
    return found


def runs_of(stage: str, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of the two runs of a case."""
    case = CASES[stage][key]
    given = _last_wins([*USUAL[stage], *case.given])
    return given, _last_wins([*given, *case.change])


def _last_wins(words: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _filled(words: tuple[str, ...], places: dict[str, Path]) -> list[str]:
    return [re.sub(r"\{(\w+)\}", lambda found: str(places.get(found[1], found[0])), word) for word in words]


@pytest.mark.parametrize(("stage", "key"), [(stage, key) for stage in STAGES for key in sorted(CASES[stage])])
def test_another_value_makes_a_difference(stage, key, observed):
    given, changed = runs_of(stage, key)
    before, after = observed[stage][given], observed[stage][changed]
    different = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert different
    assert before["status"] == 0 or after["status"] == 0, (before["text"], after["text"])


@pytest.mark.parametrize("stage", STAGES)
def test_the_metrics_of_a_stage_are_those_of_the_registry(stage, observed):
    """All that is logged is described, all that is described is logged, and in every step unless it has a condition."""
    lines = [names for each in observed[stage].values() for names in each["names"]]
    logged = {name: metric_of(name) for name in {name for names in lines for name in names}}
    described = [metric for metric in metrics() if stage in metric.stages]
    assert [name for name, metric in logged.items() if metric not in described] == []
    assert {metric.name for metric in described if metric not in logged.values()} <= NEVER_LOGGED
    always = {metric.name for metric in described if not metric.when}
    assert len(always) > 5
    assert [always - {logged[name].name for name in names} for names in lines] == [set()] * len(lines)


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_words_make_no_difference(stage, observed, configs, places, tmp_path):
    """Nothing that a clock or an address decides is taken for a difference."""
    given = tuple(USUAL[stage])
    plan, out = tmp_path / "plan.json", tmp_path / "out.json"
    plan.write_text(json.dumps([[stage, ["--config", str(configs[stage]), *_filled(given, places)]]]))
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.integration.keys.observing", str(plan), str(out)]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    (again,) = json.loads(out.read_text(encoding="utf-8"))
    assert again["status"] == 0, again["text"]
    before = observed[stage][given]
    assert {name: value for name, value in again.items() if value != before[name]} == {}
