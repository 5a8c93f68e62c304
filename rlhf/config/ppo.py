"""The configuration of stage 3."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlhf.config.algorithm import PpoSection
from rlhf.config.reward_sources import RewardRole
from rlhf.config.rollout import RolloutSection
from rlhf.config.schema import AveragedTrain, LanguageConfig, require_partitionable
from rlhf.config.sections import DataSection, DeepSpeedSection, OptimizerFields, Section, TrainingAnswerSources
from rlhf.config.tripwires import ControlSection, TripwiresSection


class ActorSection(Section):
    """The policy."""

    path: str = Field("", description="stage 1 artifact (run folder or its model/); model.path if empty")
    deepspeed: DeepSpeedSection | None = Field(
        None, description="this role's own ZeRO stage and offload; null: those of deepspeed (ppo.roles=separate)"
    )


class ReferenceSection(Section):
    """The frozen model the KL penalty is measured against."""

    path: str = Field("", description="a causal LM; the actor's start if empty")
    deepspeed: DeepSpeedSection | None = Field(
        None, description="this role's own ZeRO stage and offload; null: those of deepspeed (ppo.roles=separate)"
    )
    offload: bool = Field(False, description="keep its weights in CPU memory while actor and critic train (GPU)")


class CriticSection(OptimizerFields):
    """The value model."""

    path: str = Field("", description="stage 2 artifact it starts from; the reward model if empty")
    deepspeed: DeepSpeedSection | None = Field(
        None, description="this role's own ZeRO stage and offload; null: those of deepspeed (ppo.roles=separate)"
    )
    lr: float = Field(1e-5, gt=0, description="peak learning rate of the critic")
    epsilon: float = Field(1e-5, gt=0, description="added to AdamW's denominator")


class PpoData(DataSection):
    """Prompts, their order, and demonstrations for PPO-ptx."""

    curriculum: Literal["none", "length"] = Field(
        "none", description="length: short prompts before long ones in the first epoch"
    )
    ptx: TrainingAnswerSources = Field(default_factory=list, description="demonstrations for PPO-ptx, like train")


class PpoTrain(AveragedTrain):
    """Batches and optimizer of the actor."""

    lr: float = Field(1e-6, gt=0, description="peak learning rate of the actor")
    epsilon: float = Field(1e-5, gt=0, description="added to AdamW's denominator")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "constant", description="decay after warm-up, down to min_lr_ratio"
    )


class PpoConfig(LanguageConfig):
    """Stage 3: PPO actor-critic, or policy gradients without a critic."""

    data: PpoData = PpoData()
    train: PpoTrain = PpoTrain()
    actor: ActorSection = ActorSection()
    reference: ReferenceSection = ReferenceSection()
    reward: RewardRole = RewardRole()
    critic: CriticSection = CriticSection()
    ppo: PpoSection = PpoSection()
    rollout: RolloutSection = RolloutSection()
    tripwires: TripwiresSection = TripwiresSection()
    control: ControlSection = ControlSection()

    @property
    def trains_on_data(self) -> bool:
        """Prompts are cut to sampling.max_prompt_tokens; only demonstrations are trained on as they are."""
        return bool(self.data.ptx)

    @property
    def recomputes_logprobs(self) -> bool:
        """`rollout.recompute_logprobs`, its default filled in."""
        if self.rollout.recompute_logprobs is None:
            return self.rollout.backend == "vllm" or self.model.dtype != "float32"
        return self.rollout.recompute_logprobs

    @property
    def learners(self) -> dict[str, tuple[OptimizerFields, DeepSpeedSection]]:
        """Actor and, with ppo.estimator = gae, critic."""
        found: dict[str, tuple[OptimizerFields, DeepSpeedSection]] = {
            "train": (self.train, self.actor.deepspeed or self.deepspeed)
        }
        if self.ppo.estimator == "gae":
            found["critic"] = self.critic, self.critic.deepspeed or self.deepspeed
        return found

    @model_validator(mode="after")
    def _check_shared_optimizer(self) -> PpoConfig:
        names = {
            f"{key}.optimizer = {fields.optimizer}": fields.optimizer for key, (fields, _) in self.learners.items()
        }
        if self.ppo.roles == "shared" and len(set(names.values())) > 1:
            raise ValueError(
                f"{', '.join(names)}: with ppo.roles = shared one optimizer steps all roles; set both to the same"
            )
        return self

    @model_validator(mode="after")
    def _check_engines(self) -> PpoConfig:
        sections = {
            "actor.deepspeed": self.actor.deepspeed,
            "reference.deepspeed": self.reference.deepspeed,
            "reward.deepspeed": self.reward.deepspeed,
            "critic.deepspeed": self.critic.deepspeed,
        }
        own = {key: section for key, section in sections.items() if section is not None}
        if self.model.adapter:
            raise ValueError("model.adapter is where stages 1 and 2 start; set actor.path to a LoRA run instead")
        if self.model.lora is not None and self.model.lora.dropout:
            raise ValueError(
                f"model.lora.dropout = {self.model.lora.dropout} makes the log-probabilities of stage 3 depend on "
                "chance; set it to 0"
            )
        if self.ppo.roles == "shared" and self.deepspeed.zero_stage == 3:
            raise ValueError(
                "ppo.roles = shared does not work with deepspeed.zero_stage = 3; choose ZeRO 0 to 2: each rank "
                "holds the backbone once, and only adapters are trained"
            )
        if self.ppo.roles == "shared" and own:
            raise ValueError(
                f"{', '.join(own)}: with ppo.roles = shared the roles are one engine; set deepspeed instead, or "
                "ppo.roles=separate"
            )
        for key, section in own.items():
            require_partitionable(self.model, section, f"{key}.zero_stage")
        return self

    @model_validator(mode="after")
    def _check_rollout(self) -> PpoConfig:
        if self.rollout.overlap and self.ppo.drop_equal_groups:
            raise ValueError(
                "ppo.drop_equal_groups does not work with rollout.overlap = 1, which begins the next prompts "
                "before it is known how many this one takes; set rollout.overlap=0, or ppo.drop_equal_groups=false"
            )
        if self.ppo.rollout_size % self.train.batch_size:
            divisors = [n for n in range(1, self.ppo.rollout_size + 1) if self.ppo.rollout_size % n == 0]
            raise ValueError(
                f"train.batch_size = {self.train.batch_size} must divide ppo.rollout_size = "
                f"{self.ppo.rollout_size}; choose one of {divisors}, or change ppo.rollout_size"
            )
        if self.ppo.has_groups and self.ppo.answers_per_prompt < 2:
            raise ValueError(
                f"ppo.samples_per_prompt = {self.ppo.samples_per_prompt} leaves ppo.estimator = {self.ppo.estimator} "
                "nothing to compare an answer with; set it to at least 2, or to null for 4"
            )
        if self.ppo.drop_equal_groups and not self.ppo.has_groups:
            raise ValueError(
                f"ppo.drop_equal_groups needs answers that are compared with one another, and ppo.estimator = "
                f"{self.ppo.estimator} compares none; set ppo.estimator=rloo or grpo, or ppo.drop_equal_groups=false"
            )
        if self.ppo.overlong_buffer > self.sampling.max_new_tokens:
            raise ValueError(
                f"ppo.overlong_buffer = {self.ppo.overlong_buffer} is longer than the longest answer, "
                f"sampling.max_new_tokens = {self.sampling.max_new_tokens}; lower the first, or raise the second"
            )
        if self.ppo.rollout_size % self.ppo.answers_per_prompt:
            raise ValueError(
                f"ppo.rollout_size = {self.ppo.rollout_size} counts samples and must be a multiple of "
                f"ppo.samples_per_prompt = {self.ppo.answers_per_prompt}; change one of them"
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

    @model_validator(mode="after")
    def _check_terms(self) -> PpoConfig:
        ppo, names = self.ppo, self.reward.source_names
        if ppo.kl_in == "loss" and ppo.kl_estimator == "k1":
            raise ValueError(
                "ppo.kl_estimator = k1 does nothing with ppo.kl_in = loss: the gradient of log p has mean 0 over the "
                "policy's own tokens; choose k2 or k3, or ppo.kl_in=reward"
            )
        if ppo.value_warmup_steps and ppo.estimator != "gae":
            raise ValueError(
                f"ppo.value_warmup_steps = {ppo.value_warmup_steps} needs a critic, and ppo.estimator = "
                f"{ppo.estimator} has none; set it to 0, or ppo.estimator=gae"
            )
        if ppo.ptx_weight and not self.data.ptx:
            raise ValueError(
                f"ppo.ptx_weight = {ppo.ptx_weight} has nothing to learn: data.ptx is empty; set data.ptx=FILE, "
                "or ppo.ptx_weight=0"
            )
        if self.data.ptx and not ppo.ptx_weight:
            raise ValueError(
                f"data.ptx = {[source.path for source in self.data.ptx]} would not be used: ppo.ptx_weight is 0; "
                "set ppo.ptx_weight=1, or drop data.ptx"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"reward.functions and reward.endpoints share the name {twice[0]!r} in metrics; give each source a name"
            )
        return self
