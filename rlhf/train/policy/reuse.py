"""Answers drawn from the last ones to the same prompts (rollout.reuse): the same distribution, less decoding.

The last answer is verified under today's policy by the pass that prefills it, and what is kept of it is not decoded
again. Source: arXiv:2302.01318, with the earlier policy as the drafter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.memory import free_memory
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError
from rlhf.models.loading import model_config
from rlhf.plan.memory import GIB
from rlhf.rollout.drafts import bytes_per_kept, bytes_per_token
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm.client import occurrences
from rlhf.train.policy.drafts import FILE_DRAFTS, DraftKey, Drafts
from rlhf.train.policy.experience import samples_in_order
from rlhf.train.policy.roles import FrozenRole
from rlhf.train.policy.samples import Sample
from rlhf.train.run.run import Run

SHARE_OF_FREE = 0.5  # of the free CPU memory, for drafts; models and their optimizers may need the rest


@dataclass(slots=True)
class Reuse:
    """The drafts of a run and how many of their tokens were kept, over all ranks, in this iteration.

    Args:
        top: probabilities kept of each token's distribution; None keeps all.
    """

    drafts: Drafts
    top: int | None
    num_accepted: int = 0
    num_proposed: int = 0
    num_tokens: int = 0

    def draw(
        self,
        policy: FrozenRole,
        tokenizer: ChatTokenizer,
        prompts: Sequence[EncodedPrompt],
        config: PpoConfig,
        step: int,
        *,
        first: int = 0,
    ) -> list[Sample]:
        """One answer per prompt, as by `draw_answers` and from the same random streams where there is no draft."""
        drafts, ranks = self.drafts, policy.ranks
        rows = [prompt.row for prompt in prompts]
        keys = [DraftKey(row, number) for row, number in zip(rows, occurrences(rows), strict=True)]
        dealt = drafts.dealt(keys)
        mine = [item for item, rank in enumerate(dealt) if rank == ranks.rank]
        with policy.full_weights() as model:
            rollout = TransformersRollout(model, tokenizer.eos_id, tokenizer.text, config.rollout.cuda_graphs)
            drawn = rollout.redraw(
                [prompts[item].ids for item in mine],
                [(config.run.seed, step, rows[item], first + item) for item in mine],
                config.sampling,
                [drafts.draft(keys[item]) for item in mine],
                top=self.top,
            )
        drafts.keep(keys, dealt, drawn.drafts)
        parts = ranks.gather((mine, drawn.rollouts, drawn.num_accepted, drawn.num_proposed))
        samples = samples_in_order(prompts, [(items, rollouts) for items, rollouts, _, _ in parts])
        self.num_accepted += sum(part[2] for part in parts)
        self.num_proposed += sum(part[3] for part in parts)
        self.num_tokens += sum(len(sample.response) for sample in samples)
        return samples

    def completed(self) -> dict[str, float]:
        """The iteration is complete: its answers are drafts from now on. Shares of its tokens; that of drafts only
        where there were any."""
        self.drafts.commit()
        found = {"rollout/reused_share": self.num_accepted / max(self.num_tokens, 1)}
        if self.num_proposed:
            found["rollout/accepted_share"] = self.num_accepted / self.num_proposed
        self.num_accepted = self.num_proposed = self.num_tokens = 0
        return found


def open_reuse(run: Run[PpoConfig], actor: str, tokenizer: ChatTokenizer, *, num_prompts: int) -> Reuse | None:
    """The drafts of a run, none yet, before any model is loaded; None without rollout.reuse.

    Raises: ConfigError, on every rank, when the drafts of all prompts could take more than half of the free CPU memory.
    """
    config = run.config
    if not config.rollout.reuse:
        return None
    vocabulary = max(model_config(actor).get_text_config().vocab_size, len(tokenizer.tokenizer))
    answers = num_prompts * config.ppo.answers_per_prompt
    needed = required_memory(config, run.ranks, num_answers=answers, vocabulary=vocabulary)
    run.say(
        f"rollout.reuse: drafts of {answers:,} answers, beside those of an iteration and of a file of the checkpoint, "
        f"take up to {needed / GIB:.2f} GiB of CPU memory per rank"
    )
    if config.train.epochs <= 1:
        run.say(
            f"note: in train.epochs = {config.train.epochs:g} no prompt comes again, unless its source has a weight"
        )
    return Reuse(Drafts(run.ranks), config.rollout.reuse_top)


def required_memory(config: PpoConfig, ranks: Ranks, *, num_answers: int, vocabulary: int) -> int:
    """Bytes that the drafts of a rank can take: of all prompts, of an iteration's answers before they replace others,
    and of one file of a checkpoint. Raises: ConfigError as `open_reuse`."""
    top = config.rollout.reuse_top
    kept = -(-num_answers // ranks.world_size)
    rounds = 1 + (config.ppo.refill_rounds if config.ppo.drop_equal_groups else 0)
    drawn = -(-rounds * config.ppo.rollout_size // ranks.world_size)
    tokens = (kept + drawn + min(kept, FILE_DRAFTS)) * config.sampling.max_new_tokens
    ranks_here = max(ranks.gather(ranks.local_rank)) + 1
    allowed = int(SHARE_OF_FREE * min(ranks.gather(free_memory(torch.device("cpu")))) / ranks_here)
    needed = tokens * bytes_per_token(vocabulary, top)
    if needed > allowed:
        fitting = allowed // (tokens * bytes_per_kept(vocabulary))
        raise ConfigError(
            f"drafts of {num_answers:,} answers, of {rounds * config.ppo.rollout_size:,} that an iteration may draw, "
            f"and of a file of the checkpoint, of {config.sampling.max_new_tokens} tokens with "
            f"{min(top or vocabulary, vocabulary):,} probabilities each, take up to {needed / GIB:.1f} GiB per rank; "
            f"half of the free CPU memory is {allowed / GIB:.1f} GiB per rank",
            where=f"rollout.reuse_top = {'null' if top is None else top}",
            fix=(f"set it to {fitting} or less" if fitting else "train on fewer prompts, lower ppo.rollout_size")
            + ", or rollout.reuse=false",
        )
    return needed
