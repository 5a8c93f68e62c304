"""The peaks that the documentation and the recipes state are those that `rlhf plan` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.plan.machine import Machine
from rlhf.plan.render import gigabytes
from rlhf.plan.report import make_report

ROOT = Path(__file__).parents[3]
FIGURES = [
    ("polyglot-ko-1.3b", 1, (), "56.4"),
    ("polyglot-ko-1.3b", 2, (), "37.4"),
    ("polyglot-ko-1.3b", 1, ("deepspeed.offload_optimizer=true",), "18.6"),
    ("kullm-5.8b", 1, (), "39.3"),
    ("kullm-12.8b", 4, (), "72.0"),
    ("vaiv", 1, (), "75.9"),
]


@pytest.mark.parametrize(("recipe", "gpus", "words", "peak"), FIGURES)
def test_a_recipes_peak_is_what_its_texts_say(recipe: str, gpus: int, words: tuple[str, ...], peak: str) -> None:
    config = f"configs/{recipe}/ppo.yaml"
    report = make_report("ppo", str(ROOT / config), words, Machine(gpus=gpus))
    assert gigabytes(report.plan.peak) == peak
    for file in ("docs/recipes.md", config):
        assert f"{peak} GB" in (ROOT / file).read_text(encoding="utf-8") or f"{peak} on two" in (ROOT / file).read_text(
            encoding="utf-8"
        )
    if words:
        assert gigabytes(report.plan.host_bytes) == "72.4"
        assert "72.4 GB" in (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
