"""Roles on one backbone beside the same roles as two models: what a step moves, and what it must not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths
from rlhf.config.sections import LanguageModelSection, ModelSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import pack_sequences, plan_micro_batches
from rlhf.engine.deepspeed import StepOutcome, TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.engine.shared import SharedEngine
from rlhf.ops.logprobs import token_logprobs
from rlhf.train.models import build_causal_lm, build_scalar_model, make_trainable
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.shared_roles import build_shared
from tests.distributed.problem import OPTIMIZER, SMALL, Problem
from tests.distributed.workers.building import Results, section_of, tokenizer_of
from tests.support.lora_runs import LORA

# Norms differ by role, and so do the clips: one common clip would show.
RATES = {"actor": 0.01, "critic": 0.03}
CRITIC = {**OPTIMIZER, "lr": RATES["critic"], "max_grad_norm": 0.05, "beta1": 0.7, "weight_decay": 0.3}
STAGES = (0, 1, 2)


class Silent:
    """As much of a run as the builders read."""

    def __init__(self, config: PpoConfig, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks

    def say(self, text: str) -> None: ...


def shared_config(
    stage: int, *, offload: bool = False, precision: str = "float32", optimizer: str = "adamw"
) -> PpoConfig:
    """With checkpointing: what is recomputed in backward must be of the role whose backward it is."""
    return PpoConfig.model_validate(
        {
            "model": {"gradient_checkpointing": True, "dtype": precision.split(maxsplit=1)[0]},
            "ppo": {"roles": "shared"},
            "train": {
                **OPTIMIZER,
                "optimizer": optimizer,
                "lr": RATES["actor"],
                "micro_tokens": SMALL,
                "batch_size": 1,
                "ema_decay": 0.9,
            },
            "critic": {**CRITIC, "optimizer": optimizer},
            "deepspeed": section_of(stage, offload=offload, precision=precision).model_dump(),
            "data": {"max_length": SMALL},
            "sampling": {"max_new_tokens": 12, "max_prompt_tokens": 20},
        }
    )


def shared_roles(
    paths: dict[str, str],
    stage: int,
    ranks: Ranks,
    *,
    offload: bool = False,
    precision: str = "float32",
    optimizer: str = "adamw",
) -> Roles:
    config = shared_config(stage, offload=offload, precision=precision, optimizer=optimizer)
    actor, reward = f"{paths['sft run']}/model", f"{paths['reward run']}/model"
    run: Any = Silent(config, ranks)
    tokenizer = tokenizer_of(paths["neox"])
    return build_shared(run, RolePaths(actor, actor, reward, reward), tokenizer, tokenizer)


def separate_roles(paths: dict[str, str], stage: int, ranks: Ranks) -> Roles:
    """Actor and critic as models of their own, which start from the same adapters on the same base."""
    config, section, tokenizer = shared_config(0), section_of(stage), tokenizer_of(paths["neox"])
    base = paths["neox"]
    actor_model = LanguageModelSection(path=base, lora=LORA, adapter=paths["sft run"])
    actor = build_causal_lm(base, actor_model, section, ranks, tokenizer, key="model.path")
    make_trainable(actor, actor_model, lambda _: None)
    critic_model = ModelSection(path=base, lora=LORA, adapter=paths["reward run"])
    critic = build_scalar_model(base, critic_model, section, ranks, tokenizer, key="model.path", new_head_seed=1)
    make_trainable(critic, critic_model, lambda _: None)
    return Roles(
        actor=TrainedModel(actor, config.train, section, ranks, dtype="float32"),
        critic=TrainedModel(critic, config.critic, section, ranks, dtype="float32"),
        reference=None,  # type: ignore[arg-type]
        reward=None,
    )


def take(
    roles: Roles, batch: Sequence[EncodedSequence], learning: Sequence[str], stepped: Sequence[str]
) -> dict[str, StepOutcome]:
    """Backward of the roles in `learning`, row by row and both forward passes first; a step of those in `stepped`."""
    ranks = roles.actor.ranks
    plan = plan_micro_batches([len(item) for item in batch], SMALL, ranks.world_size)
    rows = [pack_sequences([batch[i] for i in items]).to(ranks.device) for items in plan[ranks.rank]]
    (total,) = ranks.global_sum(sum(float(row.weights.sum()) for row in rows))
    roles.actor.train()
    for row in rows:
        losses = {}
        if "actor" in learning:
            logprobs = token_logprobs(roles.actor.forward(row), row.labels)
            plain = -(logprobs * row.weights).sum() / total
            losses["actor"] = 0.7 * plain + 0.3 * roles.actor.loss(row, total).loss  # the head's own, as PPO-ptx has it
        if "critic" in learning:
            values = roles.critic.forward(row)  # type: ignore[union-attr]
            losses["critic"] = ((values - 2.0).square() * row.weights).sum() / total
        for role, loss in losses.items():
            getattr(roles, role).backward(loss)
    return roles.step({role: RATES[role] for role in stepped})


def weights_of(roles: Roles) -> dict[str, Tensor]:
    """Adapters and head by role and by their name in a saved adapter, whichever way the roles are held."""
    found: dict[str, Tensor] = {}
    if isinstance(roles.updates, SharedEngine):
        backbone = roles.updates.backbone
        for name, parameter in backbone.named_parameters():
            if (role := backbone.role_of(name)) in RATES:
                plain = name.removeprefix("language.model.").replace(f".{role}.", ".")
                found[f"{role} {'head' if name.startswith('heads') else plain}"] = parameter.detach().clone()
        return found
    for role in RATES:
        for name, value in getattr(roles, role).state_dict().items():
            if "lora_" in name or "modules_to_save" in name:
                plain = name.replace(".default.", ".")
                found[f"{role} {'head' if 'modules_to_save' in name else plain}"] = value
    return found


BUILDERS = {"shared": shared_roles, "separate": separate_roles}
STILL = (("shared", 0), ("shared", 1), ("shared", 2), ("separate", 0), ("separate", 2), ("separate", 3))


def run_shared(results: Results, problem: Problem, paths: dict[str, str]) -> None:
    """Three updates of both roles, one backbone beside two models."""
    for kind, stage in (("separate", 0), *(("shared", stage) for stage in STAGES)):
        name = f"{kind} zero{stage}"
        roles = BUILDERS[kind](paths, stage, results.ranks)
        results.weights[f"start {name}"] = weights_of(roles)
        steps = []
        for batch in problem.demonstrations:
            outcomes = take(roles, batch, ("actor", "critic"), ("actor", "critic"))
            steps.append({role: outcome.grad_norm for role, outcome in outcomes.items()})
        results.numbers[f"norms {name}"] = steps
        results.weights[f"roles {name}"] = weights_of(roles)


def run_still(results: Results, problem: Problem, paths: dict[str, str]) -> None:
    """A step in which the actor has no gradient, one in which it has but is not named, then one of both."""
    first, second, _ = problem.demonstrations
    for kind, stage in STILL:
        name = f"{kind} zero{stage}"
        roles = BUILDERS[kind](paths, stage, results.ranks)
        results.weights[f"start {name}"] = weights_of(roles)
        outcomes = take(roles, first, ("critic",), ("actor", "critic"))
        results.numbers[f"applied {name}"] = {role: outcome.applied for role, outcome in outcomes.items()}
        results.weights[f"no gradient {name}"] = weights_of(roles)
        outcomes = take(roles, first, ("actor", "critic"), ("critic",))
        results.numbers[f"dropped {name}"] = {role: outcome.grad_norm for role, outcome in outcomes.items()}
        results.weights[f"not named {name}"] = weights_of(roles)
        take(roles, second, ("actor",), ("actor", "critic"))
        results.weights[f"late {name}"] = weights_of(roles)
        fresh = BUILDERS[kind](paths, stage, results.ranks)
        take(fresh, second, ("actor",), ("actor",))
        results.weights[f"at once {name}"] = weights_of(fresh)


def run_resumed_roles(results: Results, problem: Problem, paths: dict[str, str], out: Path) -> None:
    """Two steps after a checkpoint, by the engine that saved it and by a fresh one that loaded it."""
    for stage in STAGES:
        folder = out / f"roles zero{stage}"
        if results.ranks.is_main:
            folder.mkdir()
        saved = shared_roles(paths, stage, results.ranks)
        take(saved, problem.demonstrations[0], ("actor", "critic"), ("actor", "critic"))
        results.ranks.barrier()
        loaded = shared_roles(paths, stage, results.ranks)
        for part, live in saved.trained().items():
            live.save(folder)
            loaded.trained()[part].load(folder)
        for which, roles in (("uninterrupted", saved), ("resumed", loaded)):
            for batch in problem.demonstrations[1:]:
                take(roles, batch, ("actor", "critic"), ("actor", "critic"))
            results.weights[f"{which} roles zero{stage}"] = weights_of(roles)
            with roles.actor.averaged():
                results.weights[f"average of {which} roles zero{stage}"] = weights_of(roles)
        results.weights[f"saved roles zero{stage}"] = module_of(folder)


def module_of(folder: Path) -> dict[str, Tensor]:
    """The model's part of a checkpoint."""
    (file,) = folder.rglob("mp_rank_00_model_states.pt")
    module: dict[str, Tensor] = torch.load(file, weights_only=False)["module"]
    return module
