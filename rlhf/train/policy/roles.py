"""The roles of PPO: what trainers see of them, where they start from, and four separate models that fill them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from rlhf.artifacts.manifest import require_stage
from rlhf.config.schema import PpoConfig
from rlhf.data.packing import PackedRow
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import InferenceModel, StepOutcome, TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, TokenizerError
from rlhf.evaluate.reward.gate import require_accuracy
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.losses import CrossEntropy
from rlhf.train.models import build_causal_lm, build_critic, build_scalar_model, make_trainable
from rlhf.train.run.lifecycle import Exportable, Savable, export
from rlhf.train.run.run import Run


class TrainedRole(Protocol):
    """A model that learns. Losses given to `backward` are divided by their global count already."""

    @property
    def ranks(self) -> Ranks: ...
    @property
    def dtype(self) -> str: ...
    def train(self) -> None: ...
    def forward(self, row: PackedRow) -> Tensor: ...
    def infer(self, row: PackedRow) -> Tensor: ...
    def backward(self, loss: Tensor) -> None: ...


class ActorRole(TrainedRole, Exportable, Protocol):
    """The policy, which also generates."""

    def logprobs(self, row: PackedRow, temperature: float, *, with_entropy: bool = False) -> TokenLogprobs: ...
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs: ...
    def loss(self, row: PackedRow, total: float) -> CrossEntropy: ...

    def full_weights(self) -> AbstractContextManager[nn.Module]: ...
    def averaged(self) -> AbstractContextManager[None]: ...


class FrozenRole(Protocol):
    """A model that only answers."""

    @property
    def ranks(self) -> Ranks: ...
    def forward(self, row: PackedRow) -> Tensor: ...
    def full_weights(self) -> AbstractContextManager[nn.Module]: ...


class ReferenceRole(FrozenRole, Protocol):
    """What the policy is held to."""

    def logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs: ...


class Updates(Protocol):
    """What moves and keeps the trained roles, however they are held."""

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]: ...
    def savable(self) -> Mapping[str, Savable]: ...


@dataclass(frozen=True, slots=True)
class RolePaths:
    """Where each role starts from. `reward` and `critic` are None where a run has no such role."""

    actor: str
    reference: str
    reward: str | None
    critic: str | None


@dataclass(frozen=True, slots=True)
class Roles:
    """Two models that learn, two that do not; trainers cannot tell how they are held.

    critic is None for an estimator without values, reward for a run whose scores come from elsewhere. `updates` is
    None where each trained role is an engine of its own. `backbone` is the path of the model that shared roles adapt.
    """

    actor: ActorRole
    critic: TrainedRole | None
    reference: ReferenceRole
    reward: FrozenRole | None
    updates: Updates | None = None
    backbone: str = ""

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]:
        """One update of the roles named in `rates`, each at its learning rate, from what `backward` gathered.

        A role that is not named, or had no `backward` since the last step, does not move, nor does its optimizer;
        gathered gradients are gone after it in either case. The outcome of a role that did not move has the norm of
        the gradient it lost.

        Raises: NonFiniteError before the update when a gradient's norm is not finite (float16 skips instead).
        """
        updates = self.updates or SeparateUpdates(self._engines())
        return updates.step(rates)

    def trained(self) -> Mapping[str, Savable]:
        """What a checkpoint holds, by the name of its folder."""
        updates = self.updates or SeparateUpdates(self._engines())
        return updates.savable()

    def export_actor(self, run: Run[Any], tokenizer: ChatTokenizer, probe: PackedRow, base_path: str) -> None:
        """Writes run.dir/model (and adapter/, where the actor is one), proved by a reload."""
        export(run, self.actor, tokenizer, probe, base_path=self.backbone or base_path)

    def _engines(self) -> dict[str, Any]:
        return {"actor": self.actor} | ({} if self.critic is None else {"critic": self.critic})


@dataclass(frozen=True, slots=True)
class SeparateUpdates:
    """An engine a role."""

    engines: Mapping[str, Any]

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]:
        return {
            name: engine.step(rates[name]) if name in rates else engine.discard()
            for name, engine in self.engines.items()
        }

    def savable(self) -> dict[str, Savable]:
        return dict(self.engines)


def role_paths(config: PpoConfig) -> RolePaths:
    """Paths of the roles this run has, with their defaults filled in, and refused when a reward is no reward.

    Raises: ArtifactError for a reward or critic that stage 2 did not make, or a reward below reward.min_accuracy;
        ConfigError or ModelError for a missing path.
    """
    if not config.reward.path and not config.reward.source_names:
        raise ConfigError("no reward model is named", where="reward.path", fix="set reward.path=RUN/model of stage 2")
    actor = artifact_model_path(config.actor.path or config.model.path)
    reward = artifact_model_path(config.reward.path)
    has_critic = config.ppo.estimator == "gae"
    critic = (artifact_model_path(config.critic.path) or reward) if has_critic else ""
    reference = artifact_model_path(config.reference.path) or actor
    check_model_path(actor, key="actor.path")
    check_model_path(reference, key="reference.path")
    for key, path in (("reward.path", reward), ("critic.path", critic)):
        if path:
            check_model_path(path, key=key)
            require_stage(path, "reward", key=key)
    if reward:
        require_accuracy(reward, config.reward.min_accuracy)
    # Without any reward model, values start on the actor's weights, at 0.
    return RolePaths(actor, reference, reward or None, (critic or actor) if has_critic else None)


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
    """The roles as `ppo.roles` says they are held."""
    if run.config.ppo.roles == "shared":
        from rlhf.train.policy.shared_roles import build_shared  # it imports this module

        return build_shared(run, paths, tokenizer, scorer)
    return build_separate(run, paths, tokenizer, scorer)


def build_separate(run: Run[PpoConfig], paths: RolePaths, tokenizer: ChatTokenizer, scorer: ChatTokenizer) -> Roles:
    """A model a role: actor and critic wrapped for training, reference and reward frozen."""
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
        run.say(f"{role}.offload: nothing to move, the run is on the CPU")
    build = build_causal_lm if role == "reference" else build_scalar_model
    wrapped = build(path, config.model, section, ranks, tokenizer, key=f"{role}.path")
    return InferenceModel(wrapped, section, ranks, dtype=config.model.dtype, offload=settings.offload)
