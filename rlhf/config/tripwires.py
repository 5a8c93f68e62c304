"""What stage 3 watches while it runs and does when something goes wrong, and what it is compared with at the end."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rlhf.config.sections import Positive, Section, Share

WireAction = Literal["off", "warn", "lower_lr", "stop", "rollback"]


class WireSection(Section):
    """One tripwire: how long its condition must hold, and what follows."""

    action: WireAction = Field(
        "warn",
        description="off; warn; lower_lr halves the rates from then on; stop saves, exports and ends; rollback goes "
        "back to the checkpoint before it began, at half the rates",
    )
    steps: Positive = Field(1, description="iterations in a row that the condition must hold")


class KlWire(WireSection):
    """The policy is far from the reference."""

    max_nats: float = Field(20.0, gt=0, description="nats a sequence")


class WireheadingWire(WireSection):
    """The reward model is fooled: an independent one does not see the gain. Needs tripwires.held_out_reward."""

    window: int = Field(8, ge=3, description="iterations over which trends are fitted")
    min_trend: float = Field(
        0.25, gt=0, description="first-iteration deviations by which one must rise, and the other fall, in a window"
    )
    max_gap: float = Field(
        1.5, gt=0, description="first-iteration deviations by which the gain by one may outgrow that by the other"
    )


class LengthSlopeWire(WireSection):
    """The score follows the length of the answer."""

    steps: Positive = Field(3, description="iterations in a row that the condition must hold")
    max_correlation: Share = Field(0.7, description="of score and response tokens, up or down")


class DiversityWire(WireSection):
    """Answers become alike."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_share: Share = Field(0.5, description="of the first iteration's distinct-2")


class RepetitionWire(WireSection):
    """Answers repeat their own words."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    max_share: Share = Field(0.3, description="words that equal one of the 8 before them")


class EosWire(WireSection):
    """Answers do not end."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_rate: Share = Field(0.5, description="share of answers that end in EOS")


class HangulWire(WireSection):
    """Answers leave the Korean script."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_share: Share = Field(0.8, description="of the first iteration's share of Hangul letters")


class PolitenessWire(WireSection):
    """The register of the answers drifts, up or down."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    max_drift: Share = Field(0.3, description="change of the share of polite sentences since the first iteration")


class RatioWire(WireSection):
    """An update moves the policy too far."""

    max_ratio: float = Field(50.0, gt=1, description="largest new probability over old of one token")
    max_clip_fraction: Share = Field(0.3, description="share of tokens whose ratio is clipped")
    max_approx_kl: float = Field(
        0.2, gt=0, description="nats a token, old to new policy; sees tokens whose probability collapsed, too"
    )


class GradNormWire(WireSection):
    """A gradient far beyond the usual."""

    window: int = Field(20, ge=3, description="iterations whose median is the usual")
    max_factor: float = Field(10.0, gt=1, description="times the running median of actor or critic")


class CriticWire(WireSection):
    """The critic predicts returns worse than their mean does."""

    steps: Positive = Field(5, description="iterations in a row that the condition must hold")
    min_explained_variance: float = Field(0.0, lt=1, description="explained variance of the returns")
    warmup_steps: int = Field(10, ge=0, description="first iterations that do not count")


class RewardVarianceWire(WireSection):
    """All answers score alike: nothing is left to learn from."""

    steps: Positive = Field(2, description="iterations in a row that the condition must hold")
    min_share: Share = Field(0.1, description="of the first iteration's deviation of scores")


class TripwiresSection(Section):
    """Watches over a PPO run (docs/tripwires.md)."""

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
    """The policy beside the model it started from, on held-out prompts, when training ends (control.json)."""

    enabled: bool = Field(True, description="compare at the end; needs data.eval")
    best_of: list[int] = Field(
        [4, 16, 64], min_length=1, description="n of best-of-n sampling of the reference, the other way to spend KL"
    )
    max_prompts: Positive = Field(50, description="held-out prompts used")
    samples: Positive = Field(1, description="answers a prompt of each of the two policies")

    @field_validator("best_of")
    @classmethod
    def _more_than_one(cls, value: list[int]) -> list[int]:
        if min(value) < 2:
            raise ValueError(f"{min(value)}: best-of-n starts at 2")
        return sorted(set(value))
