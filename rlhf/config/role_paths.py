"""Which path each role of PPO takes: as configured, or by default that of another role."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config.ppo import PpoConfig


@dataclass(frozen=True, slots=True)
class RolePaths:
    """The path each role starts from; `reward` and `critic` are None where a run has no such role."""

    actor: str
    reference: str
    reward: str | None
    critic: str | None


def role_paths(config: PpoConfig) -> RolePaths:
    """The paths as they are written in the configuration; `actor` is empty where none is named.

    The actor starts from the model, the reference from the actor. The critic starts from the reward model or, without
    one, from the actor's weights with values of 0.
    """
    actor = config.actor.path or config.model.path
    reward = config.reward.path or None
    critic = config.critic.path or reward or actor
    return RolePaths(
        actor=actor,
        reference=config.reference.path or actor,
        reward=reward,
        critic=critic if config.ppo.estimator == "gae" else None,
    )
