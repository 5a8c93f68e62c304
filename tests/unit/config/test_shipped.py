"""Every shipped YAML loads with the class its file name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.load import load_config
from rlhf.config.stages import STAGES

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = sorted(path for stage in STAGES for path in CONFIGS.glob(f"**/{stage}.yaml"))


@pytest.mark.parametrize("stage", STAGES)
def test_at_least_one_of_each_stage_is_shipped(stage: str) -> None:
    assert any(path.stem == stage for path in SHIPPED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_shipped_file_loads(path: Path) -> None:
    assert type(load_config(STAGES[path.stem].config, path)) is STAGES[path.stem].config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_shipped_file_leaves_the_attention_kernel_to_the_machine(path: Path) -> None:
    model = load_config(STAGES[path.stem].config, path).model
    assert (model.attention, model.cudnn_attention) == ("auto", False)
