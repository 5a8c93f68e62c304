"""What generates the answers of stage 3: the trainer's own loop, or an engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlhf.config.sections import Positive, Section


class VllmSection(Section):
    """The vLLM engine of a rank, a process of its own. Not measured on a GPU."""

    python: str = Field("", description="Python of the environment that has vllm; empty: the trainer's own")
    gpu_memory: float = Field(0.3, gt=0, lt=1, description="share of a GPU's memory for the engine's weights and cache")
    cpu_cache_gib: float = Field(1.0, gt=0, description="on a CPU: GiB for keys and values")
    devices: list[int] = Field(
        default_factory=list,
        description="GPUs of this machine for the engines, tensor_parallel for each rank in order; empty: the rank's "
        "own, where the engine sleeps while the trainer trains",
    )
    tensor_parallel: Positive = Field(1, description="GPUs of one engine; more than 1 needs devices")
    transport: Literal["auto", "shared_memory", "cuda_ipc", "nccl"] = Field(
        "auto",
        description="how weights reach the engine; auto: shared_memory on a CPU, cuda_ipc on the rank's own GPU, nccl "
        "with devices",
    )
    bucket_mib: Positive = Field(256, description="MiB of weights sent at a time")
    max_batched_tokens: Positive = Field(8192, description="most tokens in one forward pass of the engine")
    eager: bool = Field(False, description="do without CUDA graphs and compilation: a quicker start, slower answers")
    timeout_s: float = Field(1200.0, gt=0, description="end the run when the engine takes longer for one request")
    start_timeout_s: float = Field(900.0, gt=0, description="end the run when the engine takes longer to start")

    @model_validator(mode="after")
    def _check_devices(self) -> VllmSection:
        if self.tensor_parallel > 1 and not self.devices:
            raise ValueError(
                f"tensor_parallel = {self.tensor_parallel} needs GPUs that the trainer does not use; name them in "
                "devices, or set tensor_parallel=1"
            )
        if self.devices and self.transport in ("cuda_ipc", "shared_memory"):
            raise ValueError(f"transport = {self.transport} reaches no other GPU; set transport=nccl, or devices=[]")
        if not self.devices and self.transport == "nccl":
            raise ValueError("transport = nccl goes between GPUs, and devices is empty; name GPUs in devices")
        return self


class RolloutSection(Section):
    """What generates the answers of stage 3."""

    backend: Literal["transformers", "vllm"] = Field(
        "transformers", description="transformers runs anywhere; vllm is an engine in a process of its own"
    )
    cuda_graphs: Literal["auto", "on", "off"] = Field(
        "auto",
        description="transformers: capture decode steps in CUDA graphs; auto: on a GPU, where it works (not measured)",
    )
    recompute_logprobs: bool | None = Field(
        None,
        description="read the log-probabilities of drawn answers again by the training forward pass, and weigh tokens "
        "by the difference; null: with vllm, and in half precision, where decoding rounds differently",
    )
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="largest weight of a token whose log-probabilities differ between rollout and training forward",
    )
    overlap: Literal[0, 1] = Field(
        0, description="vllm: 1 draws the next iteration's answers while this one is learned from, with older weights"
    )
    reuse: bool = Field(
        False,
        description="transformers: start each answer from the last one to the same prompt, of which so much is kept "
        "that the answer's distribution stays that of today's policy; successive epochs then share randomness",
    )
    reuse_top: Positive | None = Field(
        None,
        description="reuse: largest probabilities kept of each token's distribution, 6 or 8 bytes each in CPU memory; "
        "a token outside of them is drawn anew; null: the whole vocabulary, 4 bytes each",
    )
    vllm: VllmSection = Field(default_factory=VllmSection)

    @model_validator(mode="after")
    def _check_backend(self) -> RolloutSection:
        if self.overlap and self.backend == "transformers":
            raise ValueError(
                "rollout.overlap = 1 needs an engine that draws while the trainer learns; "
                "set rollout.backend=vllm, or rollout.overlap=0"
            )
        if self.reuse and self.backend == "vllm":
            raise ValueError(
                "rollout.reuse = true needs the distribution that each token was drawn from, and an engine returns the "
                "probability of the token alone; set rollout.backend=transformers, or rollout.reuse=false"
            )
        if self.reuse_top and not self.reuse:
            raise ValueError(
                f"rollout.reuse_top = {self.reuse_top} does nothing without drafts; set rollout.reuse=true, or "
                "rollout.reuse_top=null"
            )
        if self.backend == "vllm" and self.recompute_logprobs is False:
            raise ValueError(
                "rollout.recompute_logprobs = false: the log-probabilities of vllm are those of another engine; set it "
                "to null, or rollout.backend=transformers"
            )
        return self
