"""`rlhf quickstart --arms` from the base model to the verdict, every stage cut short; and again, which keeps all."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rlhf.cli import main
from tests.integration.conftest import read_json

pytestmark = pytest.mark.full


def test_every_arm_is_trained_judged_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "q"
    assert main(["quickstart", "--arms", "--max-steps", "2", "--out", str(out)]) == 0
    arms = read_json(out / "arms" / "arms.json")
    assert list(arms) == ["sft", "best_of_n", "dpo", "ppo", "grpo"]
    for name, arm in arms.items():
        assert arm["status"] == "finished"
        assert all(math.isfinite(arm[key]) for key in ("reward", "kl", "polite", "on_topic", "seconds"))
        assert arm["interval"][0] <= arm["reward"] <= arm["interval"][1]
        if name != "sft":
            assert arm["budget"]["steps"] == 2
            assert arm["tokens"]["trained"] > 0
            assert (arm["tokens"]["sampled"] > 0) == (name != "dpo")
    report = read_json(out / "arms" / "report.json")
    assert len(report["comparisons"]) == 10  # pairs of five
    assert report["verdict"]["en"] in capfd.readouterr().out
    assert (out / "arms" / "arms.html").stat().st_size > 10_000
    assert main(["quickstart", "--arms", "--max-steps", "2", "--out", str(out)]) == 0
    shown = capfd.readouterr().err
    assert "\n== " not in shown
    assert read_json(out / "arms" / "arms.json") == arms
