"""Tripwires of stage 3: what is monitored, what follows when one trips, and the comparison at the end."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rlhf.config.sections import Positive, Section, Share

WireAction = Literal["off", "warn", "lower_lr", "stop", "rollback"]


class WireSection(Section):
    """One tripwire: how long its condition must hold, and the action that follows."""

    action: WireAction = Field(
        "warn",
        description="off; warn; lower_lr halves the rates from then on; stop saves, exports and ends; rollback "
        "returns to the checkpoint before the problem began, at half the learning rates",
    )
    steps: Positive = Field(1, description="iterations in a row that the condition must hold")


class KlWire(WireSection):
    """The policy is far from the reference."""

    max_nats: float = Field(20.0, gt=0, description="nats per sequence")


class WireheadingWire(WireSection):
    """The policy exploits the reward model: tripwires.held_out_reward, which must be set, does not see the gain."""

    window: int = Field(8, ge=3, description="iterations over which trends are fitted")
    min_trend: float = Field(
        0.25, gt=0, description="in first-iteration standard deviations: rise of one and fall of the other in a window"
    )
    max_gap: float = Field(
        1.5, gt=0, description="in standard deviations of the first iteration: largest difference between the two gains"
    )


class LengthSlopeWire(WireSection):
    """The score follows the length of the answer."""

    steps: Positive = Field(3, description="iterations in a row that the condition must hold")
    max_correlation: Share = Field(0.7, description="largest absolute correlation of score and response tokens")


class DiversityWire(WireSection):
    """Answers become alike."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_share: Share = Field(0.5, description="smallest distinct-2, as a share of the first iteration's")


class RepetitionWire(WireSection):
    """Answers repeat their own words."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    max_share: Share = Field(0.3, description="largest share of words that equal one of the 8 words before them")


class EosWire(WireSection):
    """Answers do not end."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_rate: Share = Field(0.5, description="smallest share of answers that end in EOS")


class HangulWire(WireSection):
    """Answers leave the Korean script."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_share: Share = Field(0.8, description="smallest share of Hangul letters, as a share of the first iteration's")


class PolitenessWire(WireSection):
    """The register of the answers drifts, up or down."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    max_drift: Share = Field(
        0.3, description="largest change of the share of polite sentences since the first iteration"
    )


class RatioWire(WireSection):
    """An update moves the policy too far."""

    max_ratio: float = Field(50.0, gt=1, description="largest ratio of new to old probability of one token")
    max_clip_fraction: Share = Field(0.3, description="largest share of tokens whose ratio is clipped")
    max_approx_kl: float = Field(
        0.2, gt=0, description="nats per token, old to new policy; also detects tokens whose probability collapsed"
    )


class GradNormWire(WireSection):
    """A gradient norm far above its running median."""

    window: int = Field(20, ge=3, description="iterations over which the median is taken")
    max_factor: float = Field(
        10.0, gt=1, description="largest gradient norm of actor or critic, as a multiple of its running median"
    )


class CriticWire(WireSection):
    """The critic predicts returns worse than their mean would."""

    steps: Positive = Field(5, description="iterations in a row that the condition must hold")
    min_explained_variance: float = Field(0.0, lt=1, description="smallest explained variance of the returns")
    warmup_steps: int = Field(10, ge=0, description="number of first iterations that are ignored")


class RewardVarianceWire(WireSection):
    """All answers get about the same score, so there is nothing left to learn from."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_share: Share = Field(
        0.1, description="smallest standard deviation of the scores, as a share of the first iteration's"
    )


class TripwiresSection(Section):
    """Rules that detect a PPO run going wrong (docs/tripwires.md)."""

    held_out_reward: str = Field(
        "", description="a stage 2 artifact the policy never trains on, trained on other data; for wireheading"
    )
    kl: KlWire = KlWire()
    wireheading: WireheadingWire = WireheadingWire()
    length_slope: LengthSlopeWire = LengthSlopeWire()
    diversity: DiversityWire = DiversityWire()
    repetition: RepetitionWire = RepetitionWire()
    eos_rate: EosWire = EosWire()
    hangul: HangulWire = HangulWire()
    politeness: PolitenessWire = PolitenessWire()
    ratio: RatioWire = RatioWire()
    grad_norm: GradNormWire = GradNormWire()
    critic: CriticWire = CriticWire()
    reward_variance: RewardVarianceWire = RewardVarianceWire()

    def wires(self) -> dict[str, WireSection]:
        """Every wire by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: each for name, each in found.items() if isinstance(each, WireSection)}


class ControlSection(Section):
    """Comparison of the policy with the model it started from, on held-out prompts, after training (control.json)."""

    enabled: bool = Field(True, description="compare at the end; needs data.eval")
    best_of: list[int] = Field(
        [4, 16, 64],
        min_length=1,
        description="values of n for best-of-n sampling of the reference, a baseline at equal KL",
    )
    max_prompts: Positive = Field(50, description="held-out prompts used")
    samples: Positive = Field(1, description="answers per prompt from each of the two policies")

    @field_validator("best_of")
    @classmethod
    def _more_than_one(cls, value: list[int]) -> list[int]:
        if min(value) < 2:
            raise ValueError(f"{min(value)}: best-of-n starts at 2")
        return sorted(set(value))
