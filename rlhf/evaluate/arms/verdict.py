"""Which arm to ship, in words: one that is above all others, or that they cannot be told apart and what would tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlhf.config.arms import SFT
from rlhf.evaluate.arms.statistics import ArmComparison
from rlhf.evaluate.compare.statistics import TOO_MANY
from rlhf.evaluate.control_group import MIN_PROMPTS
from rlhf.evaluate.intervals import Figure
from rlhf.html.texts import Texts
from rlhf.html.words import Words, joined, same

text = Texts("rlhf.evaluate")
KEEP = ("arms.keep", "arms.keep_of_two")  # among several, of two
SHIP = ("arms.one", "arms.one_of_two")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a verdict rests on. Every mapping is by arm, the SFT model among them where it was judged.

    Attributes:
        rewards: mean score of the judge with its interval.
        comparisons: every pair of them, corrected.
        kl: nats per sequence from the SFT model.
        seconds: that the arm took in all.
        worse: measures in which the arm is worse than the SFT model.
        votes: people's, as wins minus 0.5 per prompt, every pair that was voted on, corrected.
        unfinished: arms without a finished run, and why.
        interrupted: whether the command was stopped before it had tried every arm.
    """

    rewards: Mapping[str, Figure] = field(default_factory=dict)
    comparisons: Sequence[ArmComparison] = ()
    kl: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    worse: Mapping[str, Sequence[Words]] = field(default_factory=dict)
    votes: Sequence[ArmComparison] = ()
    unfinished: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def between(self, arm: str, other: str) -> ArmComparison:
        """The comparison of an arm with another, as arm minus other."""
        found = next(each for each in self.comparisons if {arm, other} == set(each.pair))
        return found.seen_from(arm)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict.

    Attributes:
        outcome: one (an arm above all others), tied (the best cannot be told from others, and some are above the SFT
            model), none (the same, and none is), keep (the SFT model above all), people (their votes prefer another arm
            to the judge's choice), few (too few prompts), interrupted.
        arm: the one to ship, the SFT model for none and keep; empty without a verdict.
        needed: prompts that would tell apart what cannot be told apart; None where there is nothing to tell, or the
            means are equal.
    """

    outcome: str
    arm: str
    needed: int | None
    sentence: Words


def decide(standing: Standing) -> Decision:
    """The verdict on all finished arms, and what was not finished."""
    if standing.interrupted:
        return Decision("interrupted", "", None, _interrupted(standing))
    notes = [text("arms.unfinished", arm=arm, reason=reason) for arm, reason in standing.unfinished.items()]
    if len(standing.rewards) < 2:
        return Decision("interrupted", "", None, joined([text("arms.nothing"), *notes]))
    found = _decided(standing)
    preferred = _preferred_by_people(standing, found.arm)
    if preferred is not None:
        found = _overruled(found, preferred)
    if found.arm and found.arm != SFT:
        notes = [*_about(standing, found.arm, with_votes=preferred is None), *notes]
    return Decision(found.outcome, found.arm, found.needed, joined([found.sentence, *notes]))


def _decided(standing: Standing) -> Decision:
    prompts = standing.comparisons[0].num_prompts
    if prompts < MIN_PROMPTS:
        return Decision("few", "", None, text("arms.few", prompts=prompts, least=MIN_PROMPTS))
    ranked = sorted(standing.rewards, key=lambda arm: -standing.rewards[arm]["mean"])
    best, *others = ranked
    alike = [arm for arm in others if not standing.between(best, arm).tells]
    if not alike:
        gap = _figures(standing.between(best, others[0]))
        values = {"arm": best, "prompts": prompts, "second": others[0], "gap": gap, "number": len(standing.comparisons)}
        outcome, keys = ("keep", KEEP) if best == SFT else ("one", SHIP)
        return Decision(outcome, best, None, text(keys[len(others) == 1], **values))
    needed, more = _needed(standing, best, alike)
    values = {
        "first": best,
        "others": ", ".join(alike),
        "second": alike[0],
        "gap": _figures(standing.between(best, alike[0])),
        "prompts": prompts,
        "more": more,
    }
    above = [arm for arm in (best, *alike) if arm != SFT and _is_above(standing.between(arm, SFT))]
    if not above:
        return Decision("none", SFT, needed, text("arms.none", **values))
    cheapest = min(above, key=lambda arm: standing.seconds.get(arm, math.inf))
    taken = text("arms.take", arm=cheapest)
    return Decision("tied", cheapest, needed, joined([text("arms.tied", **values), taken]))


def _is_above(comparison: ArmComparison) -> bool:
    return comparison.tells and comparison.mean > 0


def _needed(standing: Standing, best: str, alike: Sequence[str]) -> tuple[int | None, Words]:
    """Prompts that would tell the best arm from every one that it cannot be told from, and the sentence of it."""
    numbers = [standing.between(best, arm).needed for arm in alike]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None, text("arms.even")
    needed = max(*known, MIN_PROMPTS)
    if needed > TOO_MANY:
        return needed, text("arms.out_of_reach", needed=TOO_MANY)
    close = needed <= standing.comparisons[0].num_prompts
    return needed, text("arms.close_call" if close else "arms.needed", needed=needed)


def _figures(comparison: ArmComparison) -> str:
    return f"{comparison.mean:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"


def _preferred_by_people(standing: Standing, arm: str) -> ArmComparison | None:
    """The arm that people prefer most clearly to the judge's choice, as a comparison with it; None without one."""
    others = [each.seen_from(_other(each, arm)) for each in standing.votes if arm in each.pair]
    return max((each for each in others if _is_above(each)), key=lambda each: each.mean, default=None)


def _other(comparison: ArmComparison, arm: str) -> str:
    first, second = comparison.pair
    return second if arm == first else first


def _overruled(found: Decision, votes: ArmComparison) -> Decision:
    """The decision for the arm that people prefer to the judge's choice."""
    arm = votes.pair[1]
    key = "arms.people.keep" if arm == SFT else "arms.people.ship"
    values = {"arm": arm, "other": found.arm, "rate": f"{votes.mean + 0.5:.1%}", "prompts": votes.num_prompts}
    return Decision("people", arm, found.needed, text(key, **values))


def _about(standing: Standing, arm: str, *, with_votes: bool) -> list[Words]:
    """What else to know of the arm: its distance, what became worse, and what people say of it."""
    found = [text("arms.distance", arm=arm, kl=standing.kl[arm], seconds=standing.seconds.get(arm, math.inf))]
    if worse := standing.worse.get(arm):
        found.append(text("arms.worse", arm=arm, listed=joined(worse, ", ")))
    votes = next((each.seen_from(arm) for each in standing.votes if {arm, SFT} == set(each.pair)), None)
    if with_votes and votes is not None:
        said = "agree" if votes.tells else "unsure"
        rate, prompts = votes.mean + 0.5, votes.num_prompts
        found.append(text(f"arms.people.{said}", arm=arm, rate=f"{rate:.1%}", prompts=prompts))
    return found


def _interrupted(standing: Standing) -> Words:
    listed = [text("arms.waiting", arm=arm, reason=reason) for arm, reason in standing.unfinished.items()]
    return text("arms.interrupted", listed=joined(listed, ", ") if listed else same("-"))
