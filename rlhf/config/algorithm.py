"""The algorithm of stage 3."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf.config.sections import Positive, Section, Share


class PpoSection(Section):
    """The algorithm. Source of the defaults: arXiv:1707.06347, arXiv:2203.02155, arXiv:2403.17031."""

    roles: Literal["separate", "shared"] = Field(
        "separate",
        description="separate: one model per role; shared: one frozen backbone with one adapter per role "
        "(actor.path, reward.path and critic.path are LoRA runs; ZeRO 0 to 2)",
    )
    estimator: Literal["gae", "rloo", "grpo", "reinforce_pp"] = Field(
        "gae",
        description="advantage estimator: gae (with a critic), rloo (arXiv:2402.14740), grpo (arXiv:2402.03300) or "
        "reinforce_pp (arXiv:2501.03262), without one",
    )
    rollout_size: Positive = Field(64, description="samples per iteration, over all ranks")
    samples_per_prompt: Positive | None = Field(
        None, description="answers per prompt in an iteration; null: 4 for rloo and grpo, otherwise 1"
    )
    epochs: Positive = Field(2, description="passes over one iteration's samples")
    max_kl_per_iteration: float | None = Field(
        None,
        gt=0,
        description="nats per token: no further epoch after one whose mean policy/approx_kl exceeds it; null: all run",
    )
    value_warmup_steps: int = Field(0, ge=0, description="number of first iterations in which only the critic learns")
    gamma: Share = Field(1.0, description="discount factor per token")
    lam: Share = Field(0.95, description="GAE lambda")
    clip: float = Field(0.2, gt=0, description="keep the policy ratio within 1 +- this")
    clip_high: float | None = Field(
        None, gt=0, description="upper bound of the ratio as 1 + this (clip-higher, arXiv:2503.14476); null: clip"
    )
    dual_clip: float | None = Field(
        None,
        gt=1,
        description="upper bound of the ratio, such as 3, where the advantage is negative (dual clip, "
        "arXiv:1912.09729); null: none",
    )
    value_clip: float | None = Field(
        None, gt=0, description="clip a value to within +- this of its old one, in reward units; null: no clipping"
    )
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy bonus in the policy loss")
    kl_coefficient: float = Field(
        0.05, ge=0, description="weight of the KL estimate, in the reward or in the loss (kl_in)"
    )
    kl_in: Literal["reward", "loss"] = Field(
        "reward", description="subtract the KL estimate from each token's reward, or add it to the policy loss"
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", description="joschu.net/blog/kl-approx.html; k1 is refused in the loss, where its mean gradient is 0"
    )
    kl_target: float | None = Field(
        None, gt=0, description="target KL in nats per sequence, for the adaptive controller; null: fixed coefficient"
    )
    kl_horizon: Positive = Field(
        2000, description="samples over which the adaptive controller corrects the coefficient"
    )
    score_normalise: Literal["none", "running"] = Field(
        "none", description="running: standardise scores by their running mean and deviation, before clipping"
    )
    score_clip: float | None = Field(5.0, gt=0, description="clip scores to +- this; null: no clipping")
    missing_eos_penalty: float = Field(1.0, ge=0, description="subtracted from the score of an answer without EOS")
    overlong_buffer: int = Field(
        0,
        ge=0,
        description="number of last tokens before sampling.max_new_tokens over which the overlong penalty grows "
        "(arXiv:2503.14476); 0: no such penalty",
    )
    overlong_penalty: float = Field(
        1.0, ge=0, description="subtracted from the reward of an answer of sampling.max_new_tokens (overlong_buffer)"
    )
    drop_equal_groups: bool = Field(
        False,
        description="rloo and grpo: leave out prompts whose answers all have the same reward, KL penalty aside, and "
        "draw others in their place (dynamic sampling, arXiv:2503.14476)",
    )
    refill_rounds: int = Field(
        3,
        ge=0,
        description="most rounds of further prompts for those left out by drop_equal_groups; after them the iteration "
        "goes on with the prompts it has",
    )
    whiten_advantages: bool | None = Field(
        None, description="scale advantages to mean 0 and variance 1; null: only with gae and reinforce_pp"
    )
    ptx_weight: float = Field(
        0.0, ge=0, description="weight of the cross-entropy on data.ptx in the actor's loss (PPO-ptx); 0: none"
    )

    @property
    def has_groups(self) -> bool:
        """Whether an answer is compared with other answers to its prompt."""
        return self.estimator in {"rloo", "grpo"}

    @property
    def answers_per_prompt(self) -> int:
        """`samples_per_prompt`, its default filled in."""
        return self.samples_per_prompt or (4 if self.has_groups else 1)

    @property
    def num_prompts(self) -> int:
        """Prompts per iteration."""
        return self.rollout_size // self.answers_per_prompt

    @property
    def whitens(self) -> bool:
        """`whiten_advantages`, its default filled in."""
        return not self.has_groups if self.whiten_advantages is None else self.whiten_advantages
