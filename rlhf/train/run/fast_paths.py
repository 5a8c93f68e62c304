"""The fast paths of a run: chosen, said, and proved on tiny tensors before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import LanguageConfig, StageConfig
from rlhf.config.sections import DeepSpeedSection
from rlhf.doctor.checks import Check
from rlhf.doctor.proofs import FastPaths, stage_proofs
from rlhf.doctor.proofs_attention import HeadShape
from rlhf.errors import ModelError
from rlhf.models.attention_choice import (
    AttentionChoice,
    KernelSupport,
    choose_attention,
    head_counts,
    head_size,
    require_packable,
)
from rlhf.models.head import require_head
from rlhf.models.loading import DTYPES, model_config
from rlhf.models.quantization import require_quantizer
from rlhf.train.run.run import Run


def start_fast_paths(run: Run[Any], paths: Mapping[str, str]) -> None:
    """Chooses the attention kernel for the models of a run, {role: path}, and proves every fast path that it takes.

    What was chosen is said, and goes into `run.resolved` for the manifest. Must be called by all ranks.

    Raises: ConfigError for a kernel or package that cannot run here, or a model that packed rows cannot serve;
        ModelError for a fast path that computes something else than the plain one, naming the key to turn.
    """
    config = run.config
    head = config.model.head if isinstance(config, LanguageConfig) else "whole"
    require_head(head)
    require_quantizer(config.model.quantize)
    dtype, support = DTYPES[config.model.dtype], KernelSupport.on(run.ranks.device)
    longest, key = _longest_sequence(config)
    choices: dict[str, AttentionChoice] = {}
    shapes: list[HeadShape] = []
    for role, path in paths.items():
        found = model_config(path)
        require_packable(found, longest, key=key)
        choices[role] = choose_attention(config.model.attention, found, dtype, support)
        if choices[role].kind == "varlen":
            shapes.append(HeadShape(*head_counts(found), head_size(found) or 0))
    run.resolved["attention"] = {role: asdict(choice) for role, choice in choices.items()}
    run.resolved["cudnn_attention"] = config.model.cudnn_attention
    for choice in dict.fromkeys(choices.values()):
        roles = [role for role, other in choices.items() if other == choice]
        run.say(f"attention of {', '.join(roles)}: {choice.kind} ({choice.reason})")
    taken = FastPaths(
        tuple(dict.fromkeys(shapes)),
        head=head,
        quantized=config.model.quantize != "none",
        cpu_optimizer=any(each.offload_optimizer for each in _trained(config)),
    )
    require_proved(run, stage_proofs(run.ranks, dtype, taken))


def require_proved(run: Run[Any], checks: Sequence[Check]) -> None:
    """Raises ModelError on every rank where a check failed on any."""
    own = [check for check in checks if check.state == "failed"]
    failed = [(rank, check) for rank, found in enumerate(run.ranks.gather(own)) for check in found]
    if failed:
        rank, check = failed[0]
        raise ModelError(
            f"{check.name} is wrong on rank {rank}: {check.detail}",
            where="start of the stage",
            expected="what the plain computation gives, within the tolerance",
            fix=check.fix,
        )


def _longest_sequence(config: StageConfig) -> tuple[int, str]:
    """Most tokens of one sequence, and the key that limits them."""
    data, sampled = config.data.max_length if config.trains_on_data else 0, 0
    if isinstance(config, PpoConfig):
        sampled = config.sampling.max_prompt_tokens + config.sampling.max_new_tokens
    return (data, "data.max_length") if data >= sampled else (sampled, "sampling.max_prompt_tokens")


def _trained(config: StageConfig) -> list[DeepSpeedSection]:
    """The DeepSpeed sections of the models that are trained."""
    own = [config.actor.deepspeed, config.critic.deepspeed] if isinstance(config, PpoConfig) else [None]
    return [section or config.deepspeed for section in own]
