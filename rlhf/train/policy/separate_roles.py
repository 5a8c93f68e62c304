"""The roles of PPO as models of their own: actor and critic under an engine each, reference and reward frozen."""

from __future__ import annotations

from typing import Literal

from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.train.models import build_causal_lm, build_critic, build_scalar_model, make_trainable
from rlhf.train.policy.roles import Roles
from rlhf.train.run.run import Run


def build_separate(run: Run[PpoConfig], paths: RolePaths, tokenizer: ChatTokenizer, scorer: ChatTokenizer) -> Roles:
    """One model per role: actor and critic wrapped for training, reference and reward frozen."""
    config, ranks = run.config, run.ranks
    model, dtype, common = config.model, config.model.dtype, config.deepspeed
    reference = frozen_role(run, "reference", paths.reference, tokenizer)
    reward = None if paths.reward is None else frozen_role(run, "reward", paths.reward, scorer)
    parked = [role for role in (reference, reward) if role is not None]
    section = config.actor.deepspeed or common
    actor = build_causal_lm(paths.actor, model, section, ranks, tokenizer, key="actor.path")
    make_trainable(actor, model, lambda text: run.say(f"actor {text}"))
    decay = config.train.ema_decay
    trained = TrainedModel(actor, config.train, section, ranks, dtype=dtype, ema_decay=decay, parked=parked)
    critic = None
    if paths.critic is not None:
        section = config.critic.deepspeed or common
        values = build_critic(paths.critic, model, section, ranks, tokenizer)
        make_trainable(values, model, lambda text: run.say(f"critic {text}"))
        critic = TrainedModel(values, config.critic, section, ranks, dtype=dtype, parked=parked)
    return Roles(trained, critic, reference, reward)


def frozen_role(
    run: Run[PpoConfig], role: Literal["reference", "reward"], path: str, tokenizer: ChatTokenizer
) -> InferenceModel:
    """The reference or the reward as a model of its own, under its own ZeRO stage and offload."""
    config, ranks = run.config, run.ranks
    settings = config.reference if role == "reference" else config.reward
    section = settings.deepspeed or config.deepspeed
    if settings.offload and ranks.device.type == "cpu":
        run.say(f"{role}.offload has no effect: the run is on the CPU")
    build = build_causal_lm if role == "reference" else build_scalar_model
    wrapped = build(path, config.model, section, ranks, tokenizer, key=f"{role}.path", parked=settings.offload)
    return InferenceModel(wrapped, section, ranks, dtype=config.model.dtype, offload=settings.offload)
