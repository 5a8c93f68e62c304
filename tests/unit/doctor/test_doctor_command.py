"""`rlhf doctor` on this machine, and a configuration against machines written by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.doctor.checks import Check
from rlhf.doctor.machine import Card, MachineFacts
from rlhf.train.run.would_start import start_checks

GIB = 2**30
HERE = MachineFacts(accelerator="cpu", memory=24 * GIB, memory_free=20 * GIB, hub_offline=True)
A100 = Card("NVIDIA A100-SXM4-80GB", (8, 0), 80 * GIB, 79 * GIB)
V100 = Card("Tesla V100-SXM2-16GB", (7, 0), 16 * GIB, 15 * GIB)
CONFIGS = Path(__file__).parents[3] / "configs"
RECIPE = str(CONFIGS / "kullm-5.8b" / "ppo.yaml")
DEMO = str(CONFIGS / "demo" / "sft.yaml")


def failed(checks: list[Check]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for check in checks:
        if check.state == "failed":
            assert check.fix
            found.setdefault(check.name, []).append(check.detail)
    return found


def test_every_reason_why_a_recipe_does_not_start_is_given() -> None:
    found = failed(start_checks("ppo", RECIPE, [], HERE))
    assert found["models"] == [
        "actor.path: runs/kullm-5.8b/sft does not exist",
        "reward.path: runs/kullm-5.8b/reward does not exist",
    ]
    assert [text.split()[0] for text in found["data"]] == ["data.train", "data.eval"]
    assert found["memory"][0].startswith("on the cpu a rank needs at least ")
    assert set(found) == {"models", "data", "memory"}


def test_memory_is_planned_for_the_card_that_has_least_free() -> None:
    assert "memory" not in failed(start_checks("ppo", RECIPE, [], replace(HERE, cards=(A100, A100))))
    crowded = replace(A100, free=10 * GIB)
    found = failed(start_checks("ppo", RECIPE, [], replace(HERE, cards=(A100, crowded))))
    assert found["memory"][0].startswith("on the gpu ")
    assert found["memory"][0].endswith("10.0 GiB are free")


@pytest.mark.parametrize(
    ("words", "cards", "said"),
    [
        ([], (V100,), "model.dtype: bfloat16 needs compute capability 8.0, and a card here has 7.0"),
        (["model.attention=varlen"], (), "model.attention=varlen: it needs a CUDA GPU, and torch sees none"),
        (["rollout.backend=vllm"], (), "rollout.backend=vllm: it needs a CUDA GPU, and torch sees none"),
        (["model.head=liger"], (), "model.head=liger: it needs a CUDA GPU, and torch sees none"),
    ],
)
def test_what_the_device_cannot_do_is_named_by_its_key(words: list[str], cards: tuple[Card, ...], said: str) -> None:
    assert failed(start_checks("ppo", RECIPE, words, replace(HERE, cards=cards)))["device"] == [said]


def test_every_problem_of_a_configuration_is_a_check() -> None:
    found = failed(start_checks("sft", DEMO, ["train.lr=x", "model.pth=y"], HERE))
    assert len(found["configuration"]) == 2


def test_a_hub_model_must_be_in_the_cache_only_without_the_hub(tmp_path: Path) -> None:
    words = ["model.path=somebody/nowhere-7b", "data.train=demo:rankings_train", f"run.dir={tmp_path}/run"]
    offline = failed(start_checks("sft", DEMO, words, HERE))
    assert "the hub cache does not hold it while HF_HUB_OFFLINE is set" in offline["models"][0]
    assert failed(start_checks("sft", DEMO, words, replace(HERE, hub_offline=False))) == {}


def test_a_run_that_would_start_passes(tiny_neox: Path, tmp_path: Path) -> None:
    words = [f"model.path={tiny_neox}", "data.train=demo:rankings_train", f"run.dir={tmp_path}/run"]
    checks = start_checks("sft", DEMO, words, HERE)
    assert failed(checks) == {}
    assert {check.name for check in checks} >= {"configuration", "models", "data", "memory", "run folder", "launcher"}


def test_the_command_says_json_and_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-proofs", "--json", RECIPE]) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["passed"]
    sections = {check["section"] for check in said["checks"]}
    assert sections == {"this machine", "does it fit together", f"would {RECIPE} start here"}
    assert all(check["fix"] for check in said["checks"] if check["state"] == "failed")
    facts = {check["name"]: check["detail"] for check in said["checks"] if check["section"] == "this machine"}
    assert {"driver", "torch", "NCCL", "g++", "ninja", "/dev/shm", "hub cache", "CPU", "memory", "packages"} <= set(
        facts
    )


def test_the_table_ends_with_every_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-proofs", RECIPE]) == 1
    text = capsys.readouterr().out
    assert "models: actor.path: runs/kullm-5.8b/sft does not exist\n  fix: finish the stage whose run.dir" in text
    assert text.rstrip().endswith("checks failed")


def test_help_needs_no_torch() -> None:
    code = "import sys; from rlhf.cli import main\ntry: main(['doctor', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "key=value" in done.stdout
