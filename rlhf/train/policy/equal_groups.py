"""Groups of answers that all have the same reward are left out, and other prompts are drawn in their place.

Such a group has no advantage in RLOO and GRPO: it costs memory and time and teaches nothing. Every rank has the same
samples and scores, so all agree on what is left out and on the number of rounds.
Source: arXiv:2503.14476 section 3.2 (dynamic sampling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf.errors import TrainingError
from rlhf.train.policy.reward_sources import Scores
from rlhf.train.policy.samples import Sample

Draw = Callable[[int, int], list[Sample]]  # (prompts drawn before, prompts wanted) -> their answers, by prompt


@dataclass(slots=True)
class KeptGroups:
    """The samples that an iteration learns from, in groups; their scores, where known; and what was drawn for them.

    num_prompts: drawn, with those left out; num_tokens: of all answers drawn; missing: prompts less than wanted;
    drawn_totals: scores of all answers drawn, where any may be left out.
    """

    samples: list[Sample] = field(default_factory=list)
    scores: Scores | None = None
    num_prompts: int = 0
    num_tokens: int = 0
    num_dropped: int = 0
    num_rounds: int = 0
    missing: int = 0
    drawn_totals: list[float] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """What was left out; empty where nothing may be."""
        if not self.drawn_totals:
            return {}
        return {
            "rollout/groups_dropped": float(self.num_dropped),
            "rollout/groups_missing": float(self.missing),
            "rollout/refill_rounds": float(self.num_rounds),
            "rollout/drawn_reward": float(np.mean(self.drawn_totals)),
        }


def kept_groups(
    draw: Draw,
    score: Callable[[Sequence[Sample]], Scores],
    paid: Callable[[Sequence[Sample], Scores], Sequence[float]],
    *,
    wanted: int,
    answers: int,
    rounds: int,
) -> KeptGroups:
    """Draws until `wanted` prompts have groups of `answers` whose rewards differ, for at most `rounds` more rounds.

    A round draws as many prompts as are missing. `paid` gives the rewards by which answers of a group are compared.

    Raises: TrainingError, on every rank, when no group is left after the last round.
    """
    kept = KeptGroups()
    while True:
        drawn = draw(kept.num_prompts, wanted - len(kept.samples) // answers)
        scores = score(drawn)
        rewards = np.asarray(paid(drawn, scores), np.float64).reshape(-1, answers)
        differ = (rewards != rewards[:, :1]).any(1)
        items = [group * answers + item for group in np.flatnonzero(differ).tolist() for item in range(answers)]
        kept.samples += [drawn[item] for item in items]
        taken = scores.taken(items)
        kept.scores = taken if kept.scores is None else kept.scores.joined(taken)
        kept.num_prompts += len(differ)
        kept.num_dropped += int((~differ).sum())
        kept.num_tokens += sum(len(sample.response) for sample in drawn)
        kept.drawn_totals += scores.totals
        kept.missing = wanted - len(kept.samples) // answers
        if not kept.missing or kept.num_rounds == rounds:
            break
        kept.num_rounds += 1
    if not kept.samples:
        raise TrainingError(
            f"the answers to each of {kept.num_prompts} prompts, of {rounds + 1} rounds, all have the same reward",
            where="ppo.drop_equal_groups",
            expected="a prompt whose answers differ in reward: others teach nothing",
            fix="raise ppo.refill_rounds or ppo.samples_per_prompt, choose other prompts or a finer reward, and use "
            "--resume auto",
        )
    return kept
