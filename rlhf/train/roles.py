"""The four roles of PPO, built as four separate models. Trainers see these four names and nothing of how they
were made."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.artifacts.manifest import require_stage
from rlhf.config.schema import PpoConfig
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.errors import ConfigError, TokenizerError
from rlhf.evaluate.gate import require_accuracy
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.train.models import build_causal_lm, build_scalar_model, make_trainable
from rlhf.train.run import Run


@dataclass(frozen=True, slots=True)
class RolePaths:
    """Where each role starts from."""

    actor: str
    reference: str
    reward: str
    critic: str


@dataclass(frozen=True, slots=True)
class Roles:
    """Two models that learn, two that do not."""

    actor: TrainedModel
    critic: TrainedModel
    reference: InferenceModel
    reward: InferenceModel

    def trained(self) -> dict[str, TrainedModel]:
        return {"actor": self.actor, "critic": self.critic}


def role_paths(config: PpoConfig) -> RolePaths:
    """Paths with their defaults filled in, and refused when a reward is no reward.

    Raises: ArtifactError for a reward or critic that stage 2 did not make, or a reward below reward.min_accuracy;
        ConfigError or ModelError for a missing path.
    """
    if not config.reward.path:
        raise ConfigError("no reward model is named", where="reward.path", fix="set reward.path=RUN/model of stage 2")
    actor = artifact_model_path(config.actor.path or config.model.path)
    reward = artifact_model_path(config.reward.path)
    critic = artifact_model_path(config.critic.path) or reward
    reference = artifact_model_path(config.reference.path) or actor
    named = {"actor.path": actor, "reward.path": reward, "critic.path": critic, "reference.path": reference}
    for key, path in named.items():
        check_model_path(path, key=key)
    require_stage(reward, "reward", key="reward.path")
    require_stage(critic, "reward", key="critic.path")
    require_accuracy(reward, config.reward.min_accuracy)
    return RolePaths(actor, reference, reward, critic)


def role_tokenizers(config: PpoConfig, paths: RolePaths) -> tuple[ChatTokenizer, ChatTokenizer]:
    """The actor's tokenizer and the reward's; values need the actor's ids, scores may be re-rendered from text.

    Raises: TokenizerError when reference or critic reads other ids than the actor writes.
    """
    actor = load_tokenizer(paths.actor, config.data.template)
    for key, path in (("reference.path", paths.reference), ("critic.path", paths.critic)):
        if path != paths.actor and load_tokenizer(path, actor.template).vocabulary_hash() != actor.vocabulary_hash():
            raise TokenizerError(
                f"{path} has another vocabulary than the actor {paths.actor}",
                where=key,
                expected="the same ids: this role reads the actor's tokens one by one",
                fix="choose one with the actor's tokenizer (the reward model alone may differ)",
            )
    scorer = load_tokenizer(paths.reward)
    return actor, actor if scorer.fingerprint() == actor.fingerprint() else scorer


def build_separate(run: Run[PpoConfig], paths: RolePaths, tokenizer: ChatTokenizer, scorer: ChatTokenizer) -> Roles:
    """Four models: actor and critic wrapped for training, reference and reward frozen."""
    config, ranks = run.config, run.ranks
    model, section, dtype = config.model, config.deepspeed, config.model.dtype
    actor = build_causal_lm(paths.actor, model, section, ranks, tokenizer, key="actor.path")
    make_trainable(actor, model, lambda text: run.say(f"actor {text}"))
    critic = build_scalar_model(paths.critic, model, section, ranks, tokenizer, key="critic.path")
    make_trainable(critic, model, lambda text: run.say(f"critic {text}"))
    reference = build_causal_lm(paths.reference, model, section, ranks, tokenizer, key="reference.path")
    reward = build_scalar_model(paths.reward, model, section, ranks, scorer, key="reward.path")
    return Roles(
        actor=TrainedModel(actor, config.train, section, ranks, dtype=dtype),
        critic=TrainedModel(critic, config.critic, section, ranks, dtype=dtype),
        reference=InferenceModel(reference, section, ranks, dtype=dtype),
        reward=InferenceModel(reward, section, ranks, dtype=dtype),
    )
