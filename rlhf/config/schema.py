"""One model a stage: what `scripts/step*.py` accept, and what the run folder's config.yaml holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlhf.config.sections import (
    CheckpointSection,
    DataSection,
    DeepSpeedSection,
    EvalSection,
    LogSection,
    ModelSection,
    OptimizerFields,
    Positive,
    RunSection,
    SamplingSection,
    Section,
    Share,
    SourceSection,
    StoppingEvalSection,
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
    sampling: SamplingSection = SamplingSection()

    @model_validator(mode="after")
    def _check_lengths(self) -> StageConfig:
        if self.data.max_length > self.train.micro_tokens:
            raise ValueError(
                f"train.micro_tokens = {self.train.micro_tokens} cannot hold one sequence of "
                f"data.max_length = {self.data.max_length} tokens; raise the first or lower the second"
            )
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> StageConfig:
        lora, partitioned = self.model.lora, self.deepspeed.zero_stage == 3
        if lora is not None and lora.variant == "dora" and partitioned:
            raise ValueError(
                "model.lora.variant = dora does not work with deepspeed.zero_stage = 3: each forward pass reads the "
                "length of every row of whole weights, and a rank holds a part of them; choose ZeRO 0 to 2, or "
                "another variant"
            )
        if self.model.quantize != "none" and lora is None:
            raise ValueError(
                f"model.quantize = {self.model.quantize} needs model.lora: 4-bit weights cannot be trained; "
                "set model.lora.rank=8, or model.quantize=none"
            )
        if self.model.quantize != "none" and partitioned:
            raise ValueError(
                f"model.quantize = {self.model.quantize} does not work with deepspeed.zero_stage = 3, which cannot "
                "partition packed 4-bit weights; choose ZeRO 0 to 2"
            )
        return self


class StoppingConfig(StageConfig):
    """Keys of the stages that are judged on held-out rows."""

    eval: StoppingEvalSection = StoppingEvalSection()

    @model_validator(mode="after")
    def _check_patience(self) -> StoppingConfig:
        if self.eval.patience is not None and not self.data.eval:
            raise ValueError(
                f"eval.patience = {self.eval.patience} has nothing to judge by: data.eval is empty; "
                "set data.eval=FILE, or eval.patience=null"
            )
        return self


class SftData(DataSection):
    """What to read, and which answers to learn."""

    train_on: Literal["all", "last"] = Field(
        "all", description="loss on every answer of a conversation, or on its last one alone"
    )


class SftTrain(TrainSection):
    """Batches and optimizer of stage 1."""

    prompt_loss_weight: Share = Field(0.0, description="weight of prompt tokens in the loss; answers weigh 1")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of a running average of the weights, such as 0.999, which is then what is evaluated, "
        "sampled and exported; null keeps none",
    )
    neftune_alpha: float = Field(
        0.0, ge=0, description="NEFTune (arXiv:2310.05914): noise on embeddings in training, such as 5; 0 is none"
    )


class SftConfig(StoppingConfig):
    """Stage 1: supervised fine-tuning."""

    data: SftData = SftData()
    train: SftTrain = SftTrain()


class RewardData(DataSection):
    """Rankings, and the demonstrations whose mean score becomes 0."""

    demonstrations: list[SourceSection] = Field(
        default_factory=list,
        description="answers whose mean score becomes 0; the best training answers if empty",
    )
    max_answers: int = Field(9, ge=2, description="answers of one prompt used at most; the rest are sampled away")


class RewardTrain(TrainSection):
    """Batches, loss and optimizer of stage 2."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="probability that a label is wrong")
    centering: float = Field(0.0, ge=0, description="weight of the squared sum of a pair's scores")
    margin: Literal["none", "scores"] = Field(
        "none", description="scores: a pair is to be apart by the gap of its judge's scores; rows without any use 0"
    )
    margin_scale: float = Field(1.0, gt=0, description="reward units of margin for 1 of score gap")
    normalise: Literal["mean", "mean_and_deviation", "none"] = Field(
        "mean", description="what is brought to 0 (mean) and 1 (deviation) on the demonstrations after training"
    )


class RewardConfig(StoppingConfig):
    """Stage 2: reward model."""

    data: RewardData = RewardData()
    train: RewardTrain = RewardTrain()


class ActorSection(Section):
    """The policy, and the reference it is held to."""

    path: str = Field("", description="stage 1 artifact (run folder or its model/); model.path if empty")


class ReferenceSection(Section):
    """The frozen model the KL penalty is measured against."""

    path: str = Field("", description="a causal LM; the actor's start if empty")


class RewardRole(Section):
    """What scores the answers."""

    path: str = Field("", description="stage 2 artifact (run folder or its model/)")
    min_accuracy: Share | None = Field(
        0.6,
        description="refuse a reward model whose held-out accuracy is surely below this; null takes any",
    )


class CriticSection(OptimizerFields):
    """The value model."""

    path: str = Field("", description="stage 2 artifact it starts from; the reward model if empty")
    lr: float = Field(1e-5, gt=0, description="peak learning rate of the critic")
    epsilon: float = Field(1e-5, gt=0)


class PpoSection(Section):
    """The algorithm. Source of the defaults: arXiv:1707.06347, arXiv:2203.02155, arXiv:2403.17031."""

    rollout_size: Positive = Field(64, description="samples an iteration, over all ranks")
    epochs: Positive = Field(2, description="passes over one iteration's samples")
    gamma: Share = 1.0
    lam: Share = Field(0.95, description="GAE lambda")
    clip: float = Field(0.2, gt=0, description="policy ratio clip")
    value_clip: float | None = Field(0.2, gt=0, description="value clip; null turns it off")
    value_weight: float = Field(0.5, ge=0, description="weight of the value loss in the reported `loss`")
    entropy_weight: float = Field(0.0, ge=0, description="entropy bonus")
    kl_coefficient: float = Field(0.05, ge=0, description="weight of the KL estimate in the token reward")
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_target: float | None = Field(None, gt=0, description="nats a sequence; set it for the adaptive controller")
    kl_horizon: Positive = Field(2000, description="samples over which the adaptive controller acts")
    score_clip: float | None = Field(5.0, gt=0, description="clip scores to +- this; null turns it off")
    missing_eos_penalty: float = Field(1.0, ge=0, description="taken off the score of an answer without EOS")
    whiten_advantages: bool = True


class PpoTrain(TrainSection):
    """Batches and optimizer of the actor."""

    lr: float = Field(1e-6, gt=0, description="peak learning rate of the actor")
    epsilon: float = Field(1e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "constant"


class PpoConfig(StageConfig):
    """Stage 3: PPO actor-critic."""

    train: PpoTrain = PpoTrain()
    actor: ActorSection = ActorSection()
    reference: ReferenceSection = ReferenceSection()
    reward: RewardRole = RewardRole()
    critic: CriticSection = CriticSection()
    ppo: PpoSection = PpoSection()

    @model_validator(mode="after")
    def _check_rollout(self) -> PpoConfig:
        if self.ppo.rollout_size % self.train.batch_size:
            divisors = [n for n in range(1, self.ppo.rollout_size + 1) if self.ppo.rollout_size % n == 0]
            raise ValueError(
                f"train.batch_size = {self.train.batch_size} must divide ppo.rollout_size = "
                f"{self.ppo.rollout_size}; choose one of {divisors}, or change ppo.rollout_size"
            )
        if self.sampling.temperature == 0 or self.sampling.top_k or self.sampling.top_p < 1:
            raise ValueError(
                "PPO samples from the whole distribution: sampling.temperature must be above 0, "
                "sampling.top_k 0 and sampling.top_p 1, or the ratio is that of another distribution"
            )
        room = self.sampling.max_prompt_tokens + self.sampling.max_new_tokens
        if room > self.train.micro_tokens:
            raise ValueError(
                f"train.micro_tokens = {self.train.micro_tokens} cannot hold a prompt and an answer "
                f"(sampling.max_prompt_tokens + sampling.max_new_tokens = {room})"
            )
        return self


STAGES: dict[str, type[StageConfig]] = {"sft": SftConfig, "reward": RewardConfig, "ppo": PpoConfig}
