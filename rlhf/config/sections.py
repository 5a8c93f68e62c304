"""The sections that stages share. Every constant of a run is a field here, with its unit and default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A strict, immutable group of keys: an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class RunSection(Section):
    """Where the run is written and how long it lasts."""

    dir: str = Field("runs/default", description="run folder; created, locked while in use")
    seed: int = Field(17, ge=0, description="one seed for data order, initial weights and sampling")
    max_steps: int | None = Field(None, gt=0, description="stop after this many optimizer steps (PPO: iterations)")
    memory_check: Literal["error", "warn", "off"] = Field(
        "error",
        description="before models are loaded: refuse a run that cannot fit into free memory, warn, or skip the check",
    )
    watchdog_minutes: float | None = Field(
        30.0,
        gt=0,
        description="end the run when one step, with its evaluation and checkpoint, takes longer; null: never",
    )


class LoraSection(Section):
    """Low-rank adapters (peft)."""

    rank: Positive = Field(8, description="rank r of the update")
    alpha: Positive = Field(16, description="scale; the update is multiplied by alpha / rank (rslora: / sqrt(rank))")
    dropout: Share = Field(0.0, description="dropout on the adapter's input")
    targets: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="names of the modules that get an adapter, such as [query_key_value]"
    )
    variant: Literal["lora", "dora", "rslora"] = Field(
        "lora", description="dora also learns the norm of each row (not with ZeRO 3); rslora scales by 1 / sqrt(rank)"
    )

    @field_validator("targets", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _one_name_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) and value != "all-linear" else value


class ModelSection(Section):
    """The model a stage starts from."""

    path: str = Field("", description="folder or hub id of a Hugging Face model, or an artifact's model/ folder")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="data type of weights and activations in training"
    )
    attention: Literal["auto", "sdpa", "varlen"] = Field(
        "auto",
        description="attention kernel for packed rows: sdpa runs anywhere; varlen (flash) needs a GPU, half precision "
        "and torch 2.11; auto takes varlen where it can run",
    )
    cudnn_attention: bool = Field(
        False, description="let sdpa use cuDNN on a GPU, which plans anew for every new length"
    )
    override_eos: bool = Field(
        False, description="use the tokenizer's EOS even where the model's configuration names another"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in backward to save memory")
    adapter: str = Field(
        "", description="a LoRA run on the same base model, or its adapter/, whose weights stages 1 and 2 start from"
    )
    lora: LoraSection | None = Field(
        None, description="train low-rank adapters instead of all weights; null: all weights"
    )
    quantize: Literal["none", "4bit"] = Field(
        "none", description="4bit stores the frozen weights as nf4 (bitsandbytes; needs model.lora, not ZeRO 3)"
    )


class LanguageModelSection(ModelSection):
    """The language model a stage trains."""

    head: Literal["chunked", "whole", "liger"] = Field(
        "chunked",
        description="head and cross-entropy: over chunks of tokens, from all logits at once (for heads that are not "
        "one linear layer), or by Liger's kernel (GPU)",
    )


class SourceSection(Section):
    """One data file or folder."""

    path: str = Field(
        description="file, folder, or data set of the Hugging Face hub (org/name); demo:NAME comes with the package"
    )
    split: str = Field(
        "", description="split of a folder or data set, or sheet of an Excel file; the only one if empty"
    )
    config: str = Field("", description="configuration of a data set that has several")
    format: str = Field("auto", description="auto, or a format by name (see docs/formats.md)")
    name: str = Field("", description="name in metrics and reports; the file's stem if empty")
    limit: int | None = Field(None, gt=0, description="use only the first rows")
    ignore: list[str] = Field(
        default_factory=list,
        description="names of keys that are left out although they change what a row means, such as [tools]",
    )

    @property
    def address(self) -> str:
        """The path with configuration and split, as `rlhf.data.readers.locate` reads it."""
        part = f"{self.config}/{self.split}" if self.config else self.split
        return f"{self.path}#{part}" if part else self.path


class TrainingSource(SourceSection):
    """A source that is trained on."""

    weight: float = Field(1.0, gt=0, description="expected passes over this source in one epoch")


class AnswerSource(SourceSection):
    """A source of demonstrations, which may be ranked answers."""

    answers: Literal["best", "all"] = Field(
        "best", description="of ranked answers: use the best answer of a row, or all of them"
    )


class TrainingAnswers(TrainingSource, AnswerSource):
    """A source of demonstrations that are trained on."""


def _as_sources(value: object) -> object:
    """A path, or one source, is a list of one; a path in a list is a source."""
    items: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


def _sources(kind: type[SourceSection]) -> BeforeValidator:
    forms: Any = str | kind | list[str | kind] | None  # type: ignore[valid-type]
    return BeforeValidator(_as_sources, json_schema_input_type=forms)


Sources = Annotated[Sequence[SourceSection], _sources(SourceSection)]
TrainingSources = Annotated[Sequence[TrainingSource], _sources(TrainingSource)]
AnswerSources = Annotated[Sequence[AnswerSource], _sources(AnswerSource)]
TrainingAnswerSources = Annotated[Sequence[TrainingAnswers], _sources(TrainingAnswers)]


class DataSection(Section):
    """What to read and how to render it."""

    train: TrainingSources = Field(
        default_factory=list, description="training rows: a path, a list of paths, or sources"
    )
    eval: Sources = Field(default_factory=list, description="held-out rows, like train")
    template: str | None = Field(
        None, description="preset name or Jinja file; null uses the template inside the tokenizer"
    )
    max_length: Positive = Field(1024, description="tokens of one sequence, prompt and answer")
    on_bad_row: Literal["error", "skip"] = Field("error", description="stop at a bad row, or skip and count it")


class LrGroup(Section):
    """Parameters with a learning rate of their own."""

    match: str = Field(
        min_length=1, description="regular expression that is searched in a parameter's name; the first match wins"
    )
    scale: float = Field(gt=0, description="multiple of lr they learn at")

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value


class OptimizerFields(Section):
    """AdamW and its schedule; also used for the critic."""

    lr: float = Field(1e-5, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay; none on biases and norms")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of AdamW's second moment")
    epsilon: float = Field(1e-8, gt=0, description="added to AdamW's denominator")
    max_grad_norm: float = Field(1.0, gt=0, description="clip the global gradient norm to this")
    lr_groups: list[LrGroup] = Field(
        default_factory=list, description="multiples of lr by parameter name; parameters that match none use lr"
    )


class TrainSection(OptimizerFields):
    """Batches, length and optimizer."""

    epochs: Annotated[float, Field(gt=0)] = Field(1.0, description="passes over the training rows")
    batch_size: Positive = Field(
        32, description="sequences (stage 2: rankings; stage 3: samples) per optimizer step, over all ranks"
    )
    micro_tokens: Positive = Field(4096, description="most tokens in one forward pass on one rank")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="decay after warm-up, down to min_lr_ratio"
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="optimizer steps of linear warm-up; overrides warmup_ratio"
    )
    warmup_ratio: Share = Field(0.03, description="share of all steps spent in warm-up")
    min_lr_ratio: Share = Field(0.1, description="end of the schedule, as a share of lr")


class DeepSpeedSection(Section):
    """ZeRO and offload."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        0, description="0 replicates everything; 1 shards the optimizer state, 2 also gradients, 3 also weights"
    )
    offload_optimizer: bool = Field(
        False, description="keep optimizer state in CPU memory and update there, from ZeRO 1 on"
    )
    offload_parameters: bool = Field(False, description="keep weights in CPU memory, at ZeRO 3")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="merged into DeepSpeed's own configuration, last"
    )

    @model_validator(mode="after")
    def _check_offload(self) -> DeepSpeedSection:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError(
                "offload_optimizer needs zero_stage 1, 2 or 3, where the optimizer's state is apart from the weights; "
                "set zero_stage=2, or offload_optimizer=false"
            )
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(
                f"offload_parameters needs zero_stage 3, and zero_stage is {self.zero_stage}; "
                "set zero_stage=3, or offload_parameters=false"
            )
        return self


class CheckpointSection(Section):
    """When to save and what to keep."""

    every_steps: Positive = Field(100, description="save every this many steps, and at the end")
    keep_last: Positive = Field(
        2, description="newest checkpoints to keep; the best one (data.eval, stages 1 and 2) is kept beside them"
    )


class EvalSection(Section):
    """Held-out evaluation during training."""

    every_steps: int | None = Field(
        None, gt=0, description="evaluate every this many steps; null: at the end of each epoch"
    )
    max_rows: int | None = Field(None, gt=0, description="use at most this many held-out rows")


class StoppingEvalSection(EvalSection):
    """Held-out evaluation that may stop a run early."""

    patience: int | None = Field(
        None, gt=0, description="stop after this many evaluations in a row without improvement; null: never"
    )


class LogSection(Section):
    """What is written while training."""

    to: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = Field(
        ["tensorboard"],
        description="where metrics, samples, tripwires and the report card go beside the run folder; []: nowhere",
    )
    project: str = Field("rlhf", min_length=1, description="project (MLflow: experiment) of the run in those services")


class SampleLogSection(LogSection):
    """Metrics, and answers of the model in training."""

    samples_every_steps: int | None = Field(50, gt=0, description="write sample answers every this many steps")
    num_samples: Positive = Field(3, description="prompts answered for samples.jsonl")


class SamplingSection(Section):
    """How answers are drawn."""

    max_new_tokens: Positive = Field(128, description="longest answer in tokens, EOS included")
    max_prompt_tokens: Positive = Field(
        512, description="longest prompt in tokens; longer ones lose old turns, then are cut on the left"
    )
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")
    top_k: int = Field(0, ge=0, description="sample from the k most likely tokens; 0: from all")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="sample from the most likely tokens with this total probability; 1: from all"
    )
    batch_size: Positive | None = Field(
        None,
        description="sequences decoded together on one rank; null: on a GPU as many as half of its free memory holds, "
        "8 to 256, on a CPU 64. Answers do not depend on it",
    )
    stop: list[str] = Field(default_factory=list, description="texts that end an answer, in addition to EOS")

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: list[str]) -> list[str]:
        if "" in value:
            raise ValueError("an empty stop text would end every answer at once")
        return value
