"""The keys of preference optimisation that no other stage has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlhf.config.sections import Section

LossName = Literal["sigmoid", "ipo", "simpo", "kto"]


class DpoSection(Section):
    """The loss, its reference, and what is measured against it."""

    loss: LossName = Field(
        "sigmoid",
        description="sigmoid: DPO; ipo: a squared error, which bounds the gap; simpo: mean log-probabilities without a "
        "reference; kto: single answers marked good or bad",
    )
    beta: float | None = Field(
        None,
        gt=0,
        description="scale of the implicit reward (ipo: tau): small values let the policy move far from the reference; "
        "null: 0.1, for simpo 2",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="sigmoid and simpo: probability that a label is wrong (conservative DPO)"
    )
    target_margin: float = Field(
        1.0, ge=0, description="simpo: reward units by which the better answer should lead (the paper's gamma)"
    )
    good_weight: float = Field(1.0, ge=0, description="kto: weight of a good answer")
    bad_weight: float = Field(1.0, ge=0, description="kto: weight of a bad answer")
    sft_weight: float = Field(
        0.0, ge=0, description="weight of the cross-entropy of the best answers in the loss; 0: none"
    )
    reference_from: str = Field(
        "",
        description="run folder whose reference log-probabilities are used: of the same model, data, template and "
        "lengths; empty: they are computed before the first step",
    )
    kl_prompts: int = Field(
        64,
        ge=0,
        description="held-out prompts answered at each evaluation to estimate the KL to the reference; 0: none",
    )

    max_kl: float | None = Field(
        None,
        gt=0,
        description="end the run when eval/kl is above this, in nats per sequence, and export the best checkpoint from "
        "before, or, where the first evaluation is above it, these weights; null: no limit",
    )

    @property
    def strength(self) -> float:
        """Beta as given, or the default of the loss."""
        return self.beta if self.beta is not None else 2.0 if self.loss == "simpo" else 0.1

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with the reference."""
        return self.loss != "simpo"

    @model_validator(mode="after")
    def _check_terms(self) -> DpoSection:
        if self.label_smoothing and self.loss not in ("sigmoid", "simpo"):
            raise ValueError(
                f"label_smoothing = {self.label_smoothing} has no meaning with loss = {self.loss}; set it to 0, or "
                "loss=sigmoid"
            )
        if self.reference_from and not self.has_reference:
            raise ValueError(
                f"reference_from = {self.reference_from} would not be used: loss = simpo has no reference; drop it"
            )
        if self.max_kl is not None and not self.kl_prompts:
            raise ValueError(
                f"max_kl = {self.max_kl} has nothing to judge by: kl_prompts is 0; raise it, or drop max_kl"
            )
        if self.loss == "kto" and not (self.good_weight or self.bad_weight):
            raise ValueError("good_weight and bad_weight are both 0, so that nothing is learnt; raise one of them")
        return self
