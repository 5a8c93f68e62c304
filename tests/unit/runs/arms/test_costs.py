"""What an arm may spend and what it spent, by hand."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf.artifacts.files import write_json, write_text
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.curate.output import manifest_path
from rlhf.runs.arms.costs import ArmBudget, budget_of, draw_part, ppo_tokens, seconds_of, tokens_of
from rlhf.runs.arms.plan import ArmsPlan
from tests.unit.runs.arms.conftest import plan


def test_tokens_of_stage_3_by_hand() -> None:
    """8 answers in minibatches of 4: 2 per pass. 100 x 2 x 2 epochs + 50 x 2 x 1; 40 x 2 + 10 x 4 tokens drawn."""
    config = load_config(PpoConfig, None, ["ppo.rollout_size=8", "train.batch_size=4", "ppo.epochs=2"])
    metrics = [
        {"tokens": 100, "rollout/tokens_per_s": 40.0, "time/rollout_s": 2.0},
        {"tokens": 50, "rollout/tokens_per_s": 10.0, "time/rollout_s": 4.0, "policy/epochs_done": 1},
        {"eval/reward": 1.0},
    ]
    assert ppo_tokens(metrics, config) == {"trained": 500, "sampled": 120}


def test_budgets_follow_from_the_rows(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings, "preferences.dev=0", "judge.data=other.jsonl")
    made.divide()  # all 100 rankings of 50 prompts
    best, dpo, ppo, grpo = (budget_of(made, arm) for arm in made.config.arms)
    assert best == ArmBudget(steps=19, rows=16, answers=800)  # 100 prompts x 8; 3 epochs of 100 in batches of 16
    assert dpo == ArmBudget(steps=25, rows=8, answers=0)  # 2 epochs of 100 in batches of 8
    assert ppo == ArmBudget(steps=1, rows=512, answers=512)  # 3.5 x 100 prompts fill one rollout of 512
    assert grpo == ArmBudget(steps=1, rows=512, answers=512)  # 0.875 x 100 prompts, 128 a rollout
    short = ArmsPlan(made.config.model_copy(update={"max_steps": 2}), made.out)
    assert budget_of(short, made.config.arms[0]) == ArmBudget(steps=2, rows=16, answers=8 * 32)


def test_what_a_finished_arm_spent(tmp_path: Path, rankings: Path) -> None:
    made = plan(tmp_path / "out", rankings)
    best, dpo, ppo, _ = made.config.arms
    for arm in (best, dpo):
        (made.out / arm.title).mkdir(parents=True)
        lines = [json.dumps({"step": step, "tokens": 300}) for step in (1, 2)]
        write_text(made.out / arm.title / "metrics.jsonl", "\n".join(lines) + "\n")
    (made.out / "data").mkdir()
    write_json(manifest_path(made.drawn(best)), {"tokens": 4321})
    assert tokens_of(made, best) == {"trained": 600, "sampled": 4321}
    assert tokens_of(made, dpo) == {"trained": 600, "sampled": 0}
    taken = {"reward": 20.04, draw_part(best): 5.0, "best_of_n": 7.0, "dpo": 3.0, "ppo": 11.0, "judge": 99.0}
    assert seconds_of(best, taken) == {"reward": 20.0, "draw": 5.0, "train": 7.0}
    assert seconds_of(dpo, taken) == {"train": 3.0}
    assert seconds_of(ppo, taken) == {"reward": 20.0, "train": 11.0}
