"""The roles of PPO on one backbone: actor, critic, reference and reward as adapters of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.artifacts.adapter import StoredAdapter, base_identity, find_adapter, read_adapter
from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import InferenceModel
from rlhf.engine.shared import SharedActor, SharedEngine, SharedFrozenRole, SharedTrainedRole
from rlhf.errors import ArtifactError, ConfigError
from rlhf.models.adapters import lora_settings
from rlhf.models.head import install_head
from rlhf.models.loading import PackedCausalLM, checkpoint_activations, count_parameters, unwrap_peft
from rlhf.models.shared import SharedBackbone, stored_settings
from rlhf.train.models import build_causal_lm
from rlhf.train.policy.roles import FrozenRole, Roles
from rlhf.train.policy.separate_roles import frozen_role
from rlhf.train.run.run import Run


@dataclass(frozen=True, slots=True)
class Sources:
    """Where each role's adapter comes from. None: actor and critic start with new adapters, the reference is the
    backbone itself, the reward is a separate model. `apart` gives the reason why a role is not on the backbone.
    """

    base_path: str
    base: str
    actor: StoredAdapter | None
    reference: StoredAdapter | None
    reward: StoredAdapter | None
    critic: StoredAdapter | None
    apart: Mapping[str, str]


def build_shared(run: Run[PpoConfig], paths: RolePaths, tokenizer: ChatTokenizer, scorer: ChatTokenizer) -> Roles:
    """The roles as adapters of the base that the actor was trained on, or of the actor itself where it has no adapter.

    Raises: ConfigError when a fresh adapter is needed and model.lora is not set, or critic.path is on another base.
    """
    config = run.config
    sources = find_sources(config, paths)
    for role, reason in sources.apart.items():
        run.say(f"{role}: {reason}; it is loaded as a separate model")
    backbone = build_backbone(run, sources, paths, tokenizer)
    total, trained = count_parameters(backbone)
    run.say(f"shared backbone {sources.base_path}: {total:,} parameters, {trained:,} trained ({trained / total:.2%})")
    own = _models_apart(run, sources, paths, tokenizer, scorer)
    learning = {"actor": config.train} | ({} if paths.critic is None else {"critic": config.critic})
    engine = SharedEngine(
        backbone,
        learning,
        config.deepspeed,
        run.ranks,
        dtype=config.model.dtype,
        ema_decay=config.train.ema_decay,
        parked=tuple(own.values()),
    )
    reward: FrozenRole | None = None
    if paths.reward is not None:
        reward = own.get("reward") or SharedFrozenRole(engine, "reward")
    return Roles(
        actor=SharedActor(engine, "actor"),
        critic=None if paths.critic is None else SharedTrainedRole(engine, "critic"),
        reference=own.get("reference") or SharedFrozenRole(engine, "reference"),
        reward=reward,
        updates=engine,
        backbone=sources.base_path,
    )


def find_sources(config: PpoConfig, paths: RolePaths) -> Sources:
    """Reads the adapters of the roles' models, and finds which of them have the actor's base.

    Raises: ArtifactError for an adapter whose base changed; ConfigError as in `build_shared`.
    """
    folder = find_adapter(paths.actor)
    actor = None if folder is None else read_adapter(folder)
    base_path = paths.actor if actor is None else actor.base.path
    base = base_identity(base_path) if actor is None else actor.base.identity
    found: dict[str, StoredAdapter] = {}
    apart: dict[str, str] = {}
    named = {"reference": paths.reference, "reward": paths.reward, "critic": paths.critic}
    for role, path in named.items():
        if path is None or path == paths.actor:
            continue
        other = _adapter_of(path)
        reason = _not_on(base, actor, other, path)
        if not reason and other is not None:
            found[role] = other
        elif role != "reference" or base_identity(path) != base:
            apart[role] = reason
    if "critic" in apart and config.critic.path:
        raise ConfigError(
            apart["critic"],
            where=f"critic.path = {config.critic.path}",
            expected="a stage 2 LoRA run on the base of the actor: with ppo.roles=shared the critic is its adapter",
            fix="drop critic.path, train it on that base, or set ppo.roles=separate",
        )
    apart.pop("critic", None)
    fresh = [role for role, source in (("actor", actor), ("critic", found.get("critic"))) if source is None]
    if paths.critic is None and "critic" in fresh:
        fresh.remove("critic")
    if fresh and config.model.lora is None:
        raise ConfigError(
            f"{' and '.join(fresh)} start a new adapter, and none is configured",
            where="model.lora",
            fix="set model.lora.rank=8, or name LoRA runs on one base by actor.path and reward.path",
        )
    reference = actor if paths.reference == paths.actor else found.get("reference")
    return Sources(base_path, base, actor, reference, found.get("reward"), found.get("critic"), apart)


def _adapter_of(path: str) -> StoredAdapter | None:
    folder = find_adapter(path)
    return None if folder is None else read_adapter(folder)


def _not_on(base: str, actor: StoredAdapter | None, other: StoredAdapter | None, path: str) -> str:
    """Why `other` cannot be an adapter of the actor's base; empty if it can."""
    if other is None:
        return f"{path} has no adapter"
    if other.base.identity != base:
        return f"{other.folder} has another base ({other.base.path})"
    embeddings = {} if actor is None else actor.embeddings
    if actor is not None and other.base.num_tokens != actor.base.num_tokens:
        return f"{other.folder} has {other.base.num_tokens} tokens, the actor {actor.base.num_tokens}"
    same = embeddings.keys() == other.embeddings.keys()
    if not same or any(not torch.equal(value, embeddings[name]) for name, value in other.embeddings.items()):
        return f"{other.folder} has other embeddings than the actor"
    return ""


def build_backbone(run: Run[PpoConfig], sources: Sources, paths: RolePaths, tokenizer: ChatTokenizer) -> SharedBackbone:
    """The base with its adapters and heads, all but actor and critic frozen."""
    model = run.config.model
    language = _base(run, sources, tokenizer)
    fresh = None if model.lora is None else lora_settings(language, model.lora)
    install_head(language.model, model.head)
    if model.gradient_checkpointing:
        checkpoint_activations(language.model)
    width = int(language.model.get_input_embeddings().embedding_dim)
    backbone = SharedBackbone(language, _settings(sources.actor, fresh))
    if sources.actor is not None:
        backbone.fill_adapter("actor", sources.actor.layers)
    for role, stored in (("reference", sources.reference), ("reward", sources.reward), ("critic", sources.critic)):
        if stored is not None:
            backbone.add_adapter(role, stored_settings(stored.settings))
            backbone.fill_adapter(role, stored.layers)
        if stored is not None and role != "reference":
            backbone.add_head(role, _head(stored), stored.base.score_offset)
    if paths.critic is not None and sources.critic is None:
        backbone.add_adapter("critic", _settings(None, fresh))
        backbone.add_head("critic", torch.zeros(1, width), 0.0)
    backbone.train_only(("actor", "critic"))
    return backbone


def _base(run: Run[PpoConfig], sources: Sources, tokenizer: ChatTokenizer) -> PackedCausalLM:
    """The backbone's weights, with as many tokens as the actor was trained with."""
    config, actor = run.config, sources.actor
    # The actor's own run has already checked the EOS against its base.
    model = config.model if actor is None else config.model.model_copy(update={"override_eos": True})
    language = build_causal_lm(sources.base_path, model, config.deepspeed, run.ranks, tokenizer, key="actor.path")
    if actor is None:
        return language
    if language.model.get_input_embeddings().num_embeddings != actor.base.num_tokens:
        language.model.resize_token_embeddings(actor.base.num_tokens, mean_resizing=False)
    grown = {name.removeprefix("base_model.model."): value for name, value in actor.embeddings.items()}
    unknown = unwrap_peft(language.model).load_state_dict(grown, strict=False).unexpected_keys
    if unknown:
        raise ArtifactError(f"{actor.folder} holds weights that its base lacks: {', '.join(unknown[:4])}")
    if actor.base.quantize != model.quantize:
        run.say(
            f"warning: {actor.folder} was trained on a base with model.quantize {actor.base.quantize}, model.quantize "
            f"is {model.quantize}: scores and log-probabilities differ by the rounding"
        )
    return language


def _settings(stored: StoredAdapter | None, fresh: Any) -> Any:
    return fresh if stored is None else stored_settings(stored.settings)


def _head(stored: StoredAdapter) -> Tensor:
    if stored.head is None:
        raise ArtifactError(f"{stored.folder} holds no score head", expected="the adapter of a stage 2 run")
    return stored.head


def _models_apart(
    run: Run[PpoConfig], sources: Sources, paths: RolePaths, tokenizer: ChatTokenizer, scorer: ChatTokenizer
) -> dict[str, InferenceModel]:
    """Frozen roles that are not on the backbone."""
    own: dict[str, InferenceModel] = {}
    if "reference" in sources.apart:
        own["reference"] = frozen_role(run, "reference", paths.reference, tokenizer)
    if "reward" in sources.apart and paths.reward is not None:
        own["reward"] = frozen_role(run, "reward", paths.reward, scorer)
    return own
