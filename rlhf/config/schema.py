"""One model per stage: what the scripts of the stages accept, and what the run folder's config.yaml holds.

That of stage 3 is in `ppo.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlhf.config.preference import DpoSection
from rlhf.config.sections import (
    AnswerSources,
    CheckpointSection,
    DataSection,
    DeepSpeedSection,
    EvalSection,
    LanguageModelSection,
    LogSection,
    ModelSection,
    OptimizerFields,
    RunSection,
    SampleLogSection,
    SamplingSection,
    Section,
    Share,
    StoppingEvalSection,
    TrainingAnswerSources,
    TrainSection,
)


class StageConfig(Section):
    """Keys of every stage."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    deepspeed: DeepSpeedSection = DeepSpeedSection()
    checkpoint: CheckpointSection = CheckpointSection()
    eval: EvalSection = EvalSection()
    log: LogSection = LogSection()

    @property
    def trains_on_data(self) -> bool:
        """Whether sequences of the data, of up to data.max_length tokens, are trained on."""
        return True

    @property
    def learners(self) -> dict[str, tuple[OptimizerFields, DeepSpeedSection]]:
        """The optimizer and the engine of each trained model, by the section of the optimizer's keys."""
        return {"train": (self.train, self.deepspeed)}

    @model_validator(mode="after")
    def _check_optimizers(self) -> StageConfig:
        for key, (fields, section) in self.learners.items():
            require_optimizer_fits(fields, section, f"{key}.optimizer")
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> StageConfig:
        if self.trains_on_data and self.data.max_length > self.train.micro_tokens:
            raise ValueError(
                f"train.micro_tokens = {self.train.micro_tokens} cannot hold one sequence of "
                f"data.max_length = {self.data.max_length} tokens; raise the first or lower the second"
            )
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> StageConfig:
        if self.model.quantize != "none" and self.model.lora is None:
            raise ValueError(
                f"model.quantize = {self.model.quantize} needs model.lora: 4-bit weights cannot be trained; "
                "set model.lora.rank=8, or model.quantize=none"
            )
        if self.model.adapter and self.model.lora is None:
            raise ValueError(
                f"model.adapter = {self.model.adapter} needs model.lora, of the same rank, alpha, targets and variant"
            )
        require_partitionable(self.model, self.deepspeed, "deepspeed.zero_stage")
        return self


def require_optimizer_fits(fields: OptimizerFields, section: DeepSpeedSection, key: str) -> None:
    """Raises ValueError for an optimizer that the engine of `section` cannot step."""
    if fields.optimizer == "adafactor" and section.zero_stage:
        raise ValueError(
            f"{key} = adafactor keeps moments by row and column of each matrix, and ZeRO {section.zero_stage} gives "
            "it parts of flattened weights; choose ZeRO 0, or adamw8bit"
        )
    if fields.optimizer != "adamw" and section.offload_optimizer:
        raise ValueError(
            f"{key} = {fields.optimizer} does not work with offload_optimizer, whose update in CPU memory exists "
            "for AdamW alone; set offload_optimizer=false, or choose adamw"
        )


def require_partitionable(model: ModelSection, section: DeepSpeedSection, key: str) -> None:
    """Raises ValueError for a model that ZeRO 3 cannot partition."""
    if section.zero_stage != 3:
        return
    if model.lora is not None and model.lora.variant == "dora":
        raise ValueError(
            f"model.lora.variant = dora does not work with {key} = 3: each forward pass reads the "
            "length of every row of whole weights, and each rank holds only a part of them; choose ZeRO 0 to 2, or "
            "another variant"
        )
    if model.quantize != "none":
        raise ValueError(
            f"model.quantize = {model.quantize} does not work with {key} = 3, which cannot "
            "partition packed 4-bit weights; choose ZeRO 0 to 2"
        )


class StoppingConfig(StageConfig):
    """Keys of the stages that are evaluated on held-out rows and may stop early."""

    eval: StoppingEvalSection = StoppingEvalSection()

    @model_validator(mode="after")
    def _check_patience(self) -> StoppingConfig:
        if self.eval.patience is not None and not self.data.eval:
            raise ValueError(
                f"eval.patience = {self.eval.patience} has nothing to judge by: data.eval is empty; "
                "set data.eval=FILE, or eval.patience=null"
            )
        return self


class LanguageConfig(StageConfig):
    """Keys of the stages that train a language model, which answers while it learns."""

    model: LanguageModelSection = LanguageModelSection()
    log: SampleLogSection = SampleLogSection()
    sampling: SamplingSection = SamplingSection()


class SftData(DataSection):
    """What to read, and which answers to learn."""

    train: TrainingAnswerSources = Field(
        default_factory=list, description="training rows: a path, a list of paths, or sources"
    )
    eval: AnswerSources = Field(default_factory=list, description="held-out rows, like train")
    train_on: Literal["all", "last"] = Field(
        "all", description="loss on every answer of a conversation, or only on the last one"
    )
    learn_tool_calls: bool = Field(
        False, description="loss on turns that call tools too; otherwise they are read like a question"
    )


class AveragedTrain(TrainSection):
    """Batches and optimizer of the stages that write a language model."""

    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of a running average of the weights, such as 0.999, which is then evaluated, "
        "sampled from and exported (stage 3: the actor's); null: none",
    )


class SftTrain(AveragedTrain):
    """Batches and optimizer of stage 1."""

    prompt_loss_weight: Share = Field(
        0.0, description="weight of prompt tokens in the loss; answer tokens have weight 1"
    )
    neftune_alpha: float = Field(
        0.0, ge=0, description="NEFTune (arXiv:2310.05914): noise on embeddings in training, such as 5; 0: none"
    )


class SftConfig(LanguageConfig, StoppingConfig):
    """Stage 1: supervised fine-tuning."""

    eval: StoppingEvalSection = StoppingEvalSection()
    data: SftData = SftData()
    train: SftTrain = SftTrain()


class RankedData(DataSection):
    """Answers to one prompt that are compared with one another."""

    max_answers: int = Field(
        9, ge=2, description="use at most this many answers per prompt; the rest are dropped at random"
    )


class RewardData(RankedData):
    """Rankings, and the demonstrations whose mean score becomes 0."""

    demonstrations: AnswerSources = Field(
        default_factory=list, description="answers whose mean score is shifted to 0; the best training answers if empty"
    )


class RewardTrain(TrainSection):
    """Batches, loss and optimizer of stage 2."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="probability that a label is wrong")
    centering: float = Field(0.0, ge=0, description="weight of the squared sum of a pair's scores in the loss")
    margin: Literal["none", "scores"] = Field(
        "none",
        description="scores: the margin of a pair is the gap between its judge's scores; rows without scores use 0",
    )
    margin_scale: float = Field(1.0, gt=0, description="reward units of margin per unit of score gap")
    normalise: Literal["mean", "mean_and_deviation", "none"] = Field(
        "mean", description="after training, bring scores of the demonstrations to mean 0, and to standard deviation 1"
    )


class RewardConfig(StoppingConfig):
    """Stage 2: reward model."""

    data: RewardData = RewardData()
    train: RewardTrain = RewardTrain()


class DpoTrain(AveragedTrain):
    """Batches and optimizer of preference optimisation."""

    lr: float = Field(1e-6, gt=0, description="peak learning rate")


class DpoConfig(LanguageConfig, StoppingConfig):
    """Preference optimisation: a policy from rankings or single verdicts, without a reward model."""

    eval: StoppingEvalSection = StoppingEvalSection()
    data: RankedData = RankedData()
    train: DpoTrain = DpoTrain()
    dpo: DpoSection = DpoSection()

    @model_validator(mode="after")
    def _check_kl(self) -> DpoConfig:
        room = self.sampling.max_prompt_tokens + self.sampling.max_new_tokens
        if self.dpo.kl_prompts and room > self.train.micro_tokens:
            raise ValueError(
                f"train.micro_tokens = {self.train.micro_tokens} cannot hold a prompt and an answer sampled for the "
                f"KL (sampling.max_prompt_tokens + sampling.max_new_tokens = {room}); raise it, or set "
                "dpo.kl_prompts=0"
            )
        if self.dpo.max_kl is not None and not self.data.eval:
            raise ValueError(
                f"dpo.max_kl = {self.dpo.max_kl} ends a run at the best checkpoint, and data.eval is empty, so that "
                "none is the best; name held-out rows, or drop dpo.max_kl"
            )
        return self
