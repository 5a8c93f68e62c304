"""The arms of the quickstart: the shipped comparison passes every check that needs no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.demo.arms import quickstart_arms
from rlhf.demo.options import QuickstartOptions
from rlhf.demo.topic import topic_of
from rlhf.errors import ModelError


@pytest.mark.parametrize("max_steps", [None, 2])
def test_the_comparison_of_the_quickstart_could_start(tmp_path: Path, max_steps: int | None) -> None:
    """Best-of-n, PPO and GRPO draw about as many answers."""
    comparison = quickstart_arms(QuickstartOptions(out=tmp_path / "q", seed=5, max_steps=max_steps))
    comparison.prepare(earlier=[str(tmp_path / "q" / "sft")])
    assert {stage.config().run.seed for stage in comparison.plan.stages()} == {5}
    assert comparison.plan.out == tmp_path / "q" / "arms"
    budgets = comparison.budgets
    if max_steps is None:
        answers = [budgets[name].answers for name in ("best_of_n", "ppo", "grpo")]
        assert max(answers) < 1.1 * min(answers)
        assert answers[0] == 8000
    else:
        assert {each.steps for each in budgets.values()} == {max_steps}
    with pytest.raises(ModelError, match="no such folder"):
        comparison.prepare()


def test_the_topic_is_known_of_the_demos_prompts_alone() -> None:
    rule = topic_of(["모니터에 먼지가 쌓였는데 어떻게 할까요?"])
    assert rule is not None
    assert rule("모니터에 먼지가 쌓였는데 어떻게 할까요?", "모니터는 부드러운 천으로 살살 닦아 주세요.")
    assert not rule("모니터에 먼지가 쌓였는데 어떻게 할까요?", "비가 와요.")
    assert topic_of(["모니터에 먼지가 쌓였는데 어떻게 할까요?", "처음 듣는 말이에요."]) is None
