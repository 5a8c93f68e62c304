"""Rankings, and the parts of a comparison of arms on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.config.arms import ArmsConfig
from rlhf.config.load import load_config
from rlhf.runs.arms.plan import ArmsPlan

THINGS = [f"{first}{second}" for first in "가나다라마바사아자차" for second in "강길달물산"]


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    """100 rankings of 50 prompts, two for each."""
    path = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": f"{thing} 어때요?", "responses": [f"{thing} 좋아요.", f"{thing} 몰라 {number}."], "ranks": [1, 2]}
        for thing in THINGS
        for number in range(2)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def plan(out: Path, rankings: Path, *words: str) -> ArmsPlan:
    config = load_config(
        ArmsConfig,
        "recipe:demo/arms",
        [f"preferences.path={rankings}", "preferences.dev=0.1", "preferences.judge=0.4", "sft=s/model", *words],
    )
    return ArmsPlan(config, out)
