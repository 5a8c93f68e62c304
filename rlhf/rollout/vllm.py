"""The vLLM backend: an engine in the trainer's own process that sleeps during training. GPU only; not measured here.

Weights are pushed into the engine before each rollout. Its kernels are not the trainer's, so its log-probabilities
differ a little from those the trainer computes: the trainer recomputes them and corrects the difference
(`ops.importance`); both are logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rlhf.config.sections import RolloutSection, SamplingSection
from rlhf.data.encode import Ids
from rlhf.errors import ConfigError, require_packages
from rlhf.rollout.base import Rollouts


@dataclass(slots=True)
class VllmRollout:
    """Samples answers with vLLM.

    Args:
        engine: a `vllm.LLM` made by `start_engine`.
        eos_id: ends an answer.
        parameters: `vllm.SamplingParams`, or a callable with its arguments.
    """

    engine: Any
    eos_id: int
    parameters: Any

    def generate(
        self, prompts: Sequence[Ids], streams: Sequence[tuple[int, ...]], sampling: SamplingSection
    ) -> Rollouts:
        """One answer per prompt, with its own seed from its stream, so that answers do not depend on the batch; they
        differ from those of the transformers backend."""
        requests = [{"prompt_token_ids": prompt.tolist()} for prompt in prompts]
        settings = [self._settings(stream, sampling) for stream in streams]
        outputs = self.engine.generate(requests, settings, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        return Rollouts(
            [np.asarray(answer.token_ids, np.int32) for answer in answers],
            [
                np.asarray([step[token].logprob for step, token in zip(answer.logprobs, answer.token_ids, strict=True)])
                .astype(np.float32)
                .reshape(-1)
                for answer in answers
            ],
            [answer.finish_reason == "stop" for answer in answers],
        )

    def _settings(self, stream: tuple[int, ...], sampling: SamplingSection) -> Any:
        return self.parameters(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k or -1,
            top_p=sampling.top_p,
            seed=int(np.random.default_rng(stream).integers(2**31)),
            logprobs=0,  # of the sampled token alone
            stop=list(sampling.stop) or None,
            stop_token_ids=[self.eos_id],
            ignore_eos=False,
            skip_special_tokens=False,
        )

    def wake(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Restores the engine's memory and loads the trainer's newest weights, named as in the Hugging Face model."""
        self.engine.wake_up(tags=["weights"])
        self.engine.collective_rpc(_load, args=(weights,))  # an iterator: adapters are merged one weight at a time
        self.engine.wake_up(tags=["kv_cache"])
        self.engine.reset_prefix_cache()  # computed with older weights

    def rest(self) -> None:
        """Frees the engine's weights and cache for the trainer."""
        self.engine.sleep(level=2)


def _load(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    worker.model_runner.model.load_weights(weights)


def require_vllm(backend: str) -> None:
    """Raises ConfigError when vLLM is asked for and missing, or there is no GPU: never silently replaced."""
    if backend != "vllm":
        return
    import torch

    require_packages("vllm", extra="vllm", needed_by="rollout.backend=vllm", where="rollout.backend")
    if not torch.cuda.is_available():
        raise ConfigError(
            "rollout.backend=vllm needs a GPU", where="rollout.backend", fix="set rollout.backend=transformers"
        )


def start_engine(path: str, section: RolloutSection, *, dtype: str, max_length: int) -> VllmRollout:
    """An engine on this process's GPU, asleep; `require_vllm` comes first.

    Args:
        path: folder of weights of the right shapes, and the tokenizer.
    """
    import vllm
    from transformers import AutoConfig

    engine = vllm.LLM(
        model=path,
        dtype=dtype,
        max_model_len=max_length,
        gpu_memory_utilization=section.gpu_memory,
        enable_sleep_mode=True,
        logprobs_mode="processed_logprobs",  # after temperature, top-k and top-p: that is, of the sampling distribution
        distributed_executor_backend="external_launcher",  # each rank has its own engine
    )
    eos = AutoConfig.from_pretrained(path).eos_token_id
    rollout = VllmRollout(engine, int(eos), vllm.SamplingParams)
    rollout.rest()
    return rollout
