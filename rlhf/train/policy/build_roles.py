"""The roles of a run: their paths and tokenizers checked, then built as `ppo.roles` asks."""

from __future__ import annotations

from rlhf.artifacts.manifest import require_stage
from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths, role_paths
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.errors import ConfigError, TokenizerError
from rlhf.evaluate.reward.gate import require_accuracy
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.separate_roles import build_separate
from rlhf.train.policy.shared_roles import build_shared
from rlhf.train.run.run import Run


def checked_paths(config: PpoConfig) -> RolePaths:
    """Model folders of the roles this run has.

    Raises: ArtifactError for a reward or critic that stage 2 did not make, or a reward below reward.min_accuracy;
        ConfigError or ModelError for a missing path.
    """
    if not config.reward.path and not config.reward.source_names:
        raise ConfigError("no reward model is named", where="reward.path", fix="set reward.path=RUN/model of stage 2")
    named = role_paths(config)
    reward, critic = (path and artifact_model_path(path) for path in (named.reward, named.critic))
    paths = RolePaths(artifact_model_path(named.actor), artifact_model_path(named.reference), reward, critic)
    check_model_path(paths.actor, key="actor.path")
    check_model_path(paths.reference, key="reference.path")
    own_critic = critic if config.critic.path or reward else None  # else it starts on the actor's weights, at 0
    for key, path in (("reward.path", reward), ("critic.path", own_critic)):
        if path:
            check_model_path(path, key=key)
            require_stage(path, "reward", key=key)
    if reward:
        require_accuracy(reward, config.reward.min_accuracy)
    return paths


def role_tokenizers(config: PpoConfig, paths: RolePaths) -> tuple[ChatTokenizer, ChatTokenizer]:
    """The actor's tokenizer and the reward's; values need the actor's ids, scores may be re-rendered from text.

    Raises: TokenizerError when reference or critic reads other ids than the actor writes.
    """
    actor = load_tokenizer(paths.actor, config.data.template)
    for key, path in (("reference.path", paths.reference), ("critic.path", paths.critic or paths.actor)):
        if path != paths.actor and load_tokenizer(path, actor.template).vocabulary_hash() != actor.vocabulary_hash():
            raise TokenizerError(
                f"{path} has another vocabulary than the actor {paths.actor}",
                where=key,
                expected="the same ids: this role reads the actor's tokens one by one",
                fix="choose one with the actor's tokenizer (the reward model alone may differ)",
            )
    if paths.reward is None:
        return actor, actor
    scorer = load_tokenizer(paths.reward)
    return actor, actor if scorer.fingerprint() == actor.fingerprint() else scorer


def build_roles(run: Run[PpoConfig], paths: RolePaths, tokenizer: ChatTokenizer, scorer: ChatTokenizer) -> Roles:
    """The roles, separate or shared as `ppo.roles` says."""
    if run.config.ppo.roles == "shared":
        return build_shared(run, paths, tokenizer, scorer)
    return build_separate(run, paths, tokenizer, scorer)
