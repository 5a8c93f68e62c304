"""The control group: when PPO ends, its policy, the reference and best-of-n of the reference on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf.artifacts.files import write_json
from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.evaluate.control_group import control_card
from rlhf.evaluate.intervals import Floats
from rlhf.ops.rewards import kl_estimate
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.train.policy.experience import draw_answers, read_logprobs, with_training_logprobs
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample, padded, response_mask
from rlhf.train.run.lifecycle import track_report
from rlhf.train.run.run import Run

CONTROL_STEP = 2**31 + 1  # gives random streams apart from those of training and evaluation
DRY_RUN_PROMPTS = 2


def run_control(
    run: Run[PpoConfig],
    roles: Roles,
    sources: RewardSources,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    engine: VllmRollout | None = None,
) -> None:
    """Writes control.json and reports its verdict, or why there is none. With `engine`, vLLM draws for both models."""
    config, section = run.config, run.config.control
    if not section.enabled or not prompts:
        run.say(f"control group: skipped ({'data.eval is empty' if section.enabled else 'control.enabled is false'})")
        return
    asked = prompts[: DRY_RUN_PROMPTS if run.dry_run else section.max_prompts]
    pool = max(*section.best_of, section.samples)
    run.say(
        f"control group: {pool} answers of the reference and {section.samples} of the policy to each of {len(asked)} "
        "held-out prompts"
    )
    # Random streams are seeded by place (an engine's by row and number). In this order the policy's answers share
    # theirs with the first of the pool.
    if engine is not None:
        engine.checked = False  # the first push of these weights
    before = draw_answers(roles.reference, tokenizer, [*asked] * pool, config, CONTROL_STEP, engine)
    with roles.actor.averaged():
        after = draw_answers(roles.actor, tokenizer, [*asked] * section.samples, config, CONTROL_STEP, engine)
        if config.recomputes_logprobs:
            after, _, _ = with_training_logprobs(after, roles, config)
    card = control_card(
        _by_prompt(sources.scores(before).totals, len(asked)),
        _by_prompt(sources.scores(after).totals, len(asked)),
        policy_kl(after, roles, config),
        best_of=section.best_of,
        decoding=config.sampling.model_dump(),
    )
    run.on_main(lambda: write_json(run.folder.path / "control.json", card))
    track_report(run, "control", card)
    run.say(f"control group: {card['verdict']}")


def policy_kl(samples: Sequence[Sample], roles: Roles, config: PpoConfig) -> list[float]:
    """log p(policy) - log p(reference) of each answer in nats; its mean estimates KL(policy || reference)."""
    mask = response_mask(samples)
    own = padded([sample.old_logprobs for sample in samples], mask)
    reference = read_logprobs(samples, mask, roles.actor.ranks, config, roles.reference.infer_logprobs)
    return kl_estimate(own, reference, mask, kind="k1").sum(1).tolist()


def _by_prompt(scores: Sequence[float], num_prompts: int) -> Floats:
    """Scores in sampling order, as [prompts, answers]."""
    return np.asarray(scores, dtype=float).reshape(-1, num_prompts).T
