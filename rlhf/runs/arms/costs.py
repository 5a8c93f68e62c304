"""What an arm may spend, read from its configuration before it starts, and what it spent, read from its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.artifacts.files import read_json
from rlhf.config.arms import ArmSection
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import StageConfig
from rlhf.curate.output import manifest_path
from rlhf.data.embedded import data_path
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, read_records
from rlhf.plan.steps import count_rows, planned_steps
from rlhf.runs.arms.plan import ArmsPlan
from rlhf.runs.record import read_lines


@dataclass(frozen=True, slots=True)
class ArmBudget:
    """What an arm's configuration lets it do.

    steps: optimizer steps (stage 3: iterations). rows: sequences, rankings or samples per step. answers: drawn from
    the policy in all, 0 for none.
    """

    steps: int
    rows: int
    answers: int

    def as_dict(self) -> dict[str, int]:
        """As arms.json holds it."""
        return {"steps": self.steps, "rows_per_step": self.rows, "answers": self.answers}


def budget_of(plan: ArmsPlan, arm: ArmSection) -> ArmBudget:
    """The budget of an arm by its configuration and the rows of its files."""
    config = plan.stage(arm).config()
    if arm.kind == "best_of_n":
        source = DataSource(data_path(plan.prompts), limit=plan.num_prompts_limit(arm))
        prompts = len(read_records(source, Prompt, on_bad_row="skip").records)
        return ArmBudget(_steps(config, (prompts,)), config.train.batch_size, arm.k * prompts)
    steps = _steps(config, count_rows(config)[0])
    if isinstance(config, PpoConfig):
        return ArmBudget(steps, config.ppo.rollout_size, steps * config.ppo.rollout_size)
    return ArmBudget(steps, config.train.batch_size, 0)


def _steps(config: StageConfig, rows: tuple[int, ...]) -> int:
    steps = planned_steps(config, rows)
    return min(steps, config.run.max_steps) if config.run.max_steps else steps


def tokens_of(plan: ArmsPlan, arm: ArmSection) -> dict[str, int]:
    """Tokens of a finished arm.

    trained: in forward and backward passes, prompts and repeated epochs included. sampled: of the answers drawn.
    """
    stage = plan.stage(arm)
    metrics = read_lines(stage.folder / "metrics.jsonl")
    config = stage.config()
    if isinstance(config, PpoConfig):
        return ppo_tokens(metrics, config)
    trained = sum(row.get("tokens", 0) for row in metrics)
    drawn = read_json(manifest_path(plan.drawn(arm)))["tokens"] if arm.kind == "best_of_n" else 0
    return {"trained": round(trained), "sampled": int(drawn)}


def ppo_tokens(metrics: list[dict[str, Any]], config: PpoConfig) -> dict[str, int]:
    """Of stage 3 `tokens` is of a minibatch, which comes again in each epoch. Drawn tokens are those of the speed that
    the rollout notes: answers of groups that were replaced are among them."""
    minibatches = config.ppo.rollout_size / config.train.batch_size
    trained = sum(
        row.get("tokens", 0) * minibatches * row.get("policy/epochs_done", config.ppo.epochs) for row in metrics
    )
    sampled = sum(row.get("rollout/tokens_per_s", 0) * row.get("time/rollout_s", 0) for row in metrics)
    return {"trained": round(trained), "sampled": round(sampled)}


def seconds_of(arm: ArmSection, taken: Mapping[str, float]) -> dict[str, float]:
    """Seconds of an arm by part: its reward model where it learns from one trained here, its draw, its training."""
    parts = {"reward": "reward"} if arm.needs_reward else {}
    parts |= {"draw": draw_part(arm), "train": arm.title}
    return {name: round(taken[part], 1) for name, part in parts.items() if part in taken}


def draw_part(arm: ArmSection) -> str:
    """The name under which the time of a best-of-n draw is kept."""
    return f"{arm.title} draw"
