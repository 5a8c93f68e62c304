"""`rlhf plan` as a user types it."""

import json
from pathlib import Path

import pytest

import rlhf
from rlhf.cli import main
from rlhf.config.schema import RewardConfig, SftConfig
from rlhf.plan.launch import hostfile, launch_line
from rlhf.plan.shapes import BUILT_IN
from rlhf.plan.steps import count_rows, warmup_steps
from rlhf.plan.time import estimate_run

KULLM = str(Path(rlhf.__file__).parents[1] / "configs" / "kullm-12.8b" / "ppo.yaml")
SHARED = ("ppo.roles=shared", "model.quantize=4bit", "deepspeed.zero_stage=2", "sampling.batch_size=16")


def test_the_shared_four_bit_backbone_fits_one_card(capsys):
    words = ["plan", KULLM, *SHARED, "--gpus", "1", "--gpu-memory", "40"]

    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "fits" in shown
    assert f"deepspeed --num_gpus 1 scripts/step3_ppo.py --config {KULLM} ppo.roles=shared" in shown
    assert "planned, not measured" in shown


def test_what_does_not_fit_comes_with_a_change_that_does(capsys):
    words = ["plan", KULLM, "--gpus", "1", "--gpu-memory", "40", "--json"]

    assert main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["models"]["reward"]["name"] == "Polyglot-ko 5.8B"  # from the stage's own file beside it
    assert found["peak"] > 40e9 >= found["cheapest_change"]["peak"]
    changes = found["cheapest_change"]["words"].split()
    assert main([*words[:2], *changes, *words[2:]]) == 0
    assert json.loads(capsys.readouterr().out)["peak"] == found["cheapest_change"]["peak"]


def test_a_file_without_a_stages_name_asks_for_it(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("model:\n  path: EleutherAI/polyglot-ko-1.3b\n")
    assert main(["plan", str(tmp_path / "mine.yaml")]) == 1
    assert "--stage" in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "mine.yaml"), "--stage", "sft"]) == 0


def test_the_table_has_a_row_a_size_stage_and_count(capsys):
    assert main(["plan", "--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Planned, not measured")
    assert len([line for line in lines if line.startswith("| Polyglot-ko")]) == 4 * 3 * 2 * 2


def test_several_machines_get_a_hostfile():
    line = launch_line("sft", "a b.yaml", ["train.lr=1e-5"], nodes=2, gpus=8)

    assert line == "deepspeed --hostfile hostfile scripts/step1_sft.py --config 'a b.yaml' train.lr=1e-5"
    assert hostfile(2, 8) == "node1 slots=8\nnode2 slots=8\n"
    assert hostfile(1, 8) == ""


def test_steps_and_warm_up_of_rows_that_are_there(tmp_path):
    rows = "".join(json.dumps({"prompt": f"질문 {n}", "response": "답"}, ensure_ascii=False) + "\n" for n in range(70))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    config = SftConfig.model_validate(
        {"data": {"train": str(tmp_path / "rows.jsonl"), "max_length": 100}, "train": {"batch_size": 32, "epochs": 2}}
    )
    effort = estimate_run(config, {"model": BUILT_IN["1.3b"]}, 1, utilisation=0.5, flops_per_second=1e12)

    assert (effort.rows, effort.assumed, effort.steps) == (70, False, 5)  # 140 rows in batches of 32
    assert effort.tokens == 5 * 32 * 100
    # 6 a parameter and token, and 6 x 24 layers x 2048 x 100 of attention
    assert effort.flops == 16000 * (6 * BUILT_IN["1.3b"].parameters + 6 * 24 * 2048 * 100)
    assert effort.hours == pytest.approx(effort.flops / 5e11 / 3600)


def test_absent_rows_are_stood_for_by_a_thousand():
    config = RewardConfig.model_validate({"data": {"train": "nowhere/rows.jsonl"}, "train": {"warmup_steps": 100}})

    assert count_rows(config) == ((1000,), True)
    assert warmup_steps(config.train, 32) == 100  # shown as it is: training refuses it
