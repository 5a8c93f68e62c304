"""vLLM behind the requests of the loop. What differs between a CPU and a GPU is decided in `_device_options` alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .loop import Answer, PromptRequest, StreamRequest


class VllmEngine:
    """An engine whose weights are pushed, random until then: a tensor that is not pushed shows at once; or one that
    reads the weights of the model's folder.

    Args:
        settings: fields of the trainer's `start` message.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import vllm
        from vllm.platforms import current_platform

        self._on_cpu = current_platform.is_cpu()
        self._sleeps = bool(settings["sleeps"]) and not self._on_cpu
        self._parameters = vllm.SamplingParams
        self._engine = vllm.LLM(
            model=settings["model"],
            dtype=settings["dtype"],
            max_model_len=settings["max_length"],
            max_num_seqs=settings["max_answers"],
            max_num_batched_tokens=max(settings["max_batched_tokens"], settings["max_length"]),
            tensor_parallel_size=settings["tensor_parallel"],
            load_format={"pushed": "dummy", "folder": "auto"}[settings["weights"]],
            worker_extension_cls=f"{__package__}.receiver.WeightReceiver",
            # of rollouts after temperature, top-k and top-p: of the sampling distribution
            logprobs_mode=settings["logprobs"],
            generation_config="vllm",  # no settings from the model's folder
            enable_sleep_mode=self._sleeps,
            seed=0,  # each answer has its own
            disable_log_stats=True,
            **self._device_options(settings),
        )

    def _device_options(self, settings: dict[str, Any]) -> dict[str, Any]:
        if not self._on_cpu:
            return {"gpu_memory_utilization": settings["gpu_memory"], "enforce_eager": settings["eager"]}
        # Prompts read in parts break seeded requests there: a CPU generator has no offset.
        cache = int(settings["cpu_cache_gib"] * 2**30)
        return {"kv_cache_memory_bytes": cache, "enforce_eager": True, "enable_chunked_prefill": False}

    def facts(self) -> dict[str, Any]:
        from vllm.platforms import current_platform

        vocabulary = self._engine.llm_engine.model_config.get_vocab_size()
        return {"device": current_platform.device_type, "vocabulary": int(vocabulary), "sleeps": self._sleeps}

    def generate(self, requests: list[PromptRequest], sampling: dict[str, Any]) -> list[Answer]:
        settings = [self._sampling(request, sampling) for request in requests]
        prompts = [{"prompt_token_ids": request.prompt} for request in requests]
        outputs = self._engine.generate(prompts, settings, use_tqdm=False)
        found = []
        for request, output in zip(requests, outputs, strict=True):
            answers = sorted(output.outputs, key=lambda answer: answer.index)
            assert len(answers) == request.number
            found += [_answer(answer) for answer in answers]
        return found

    def _sampling(self, request: PromptRequest, sampling: dict[str, Any]) -> Any:
        return self._parameters(
            n=request.number,
            seed=request.seed,  # vLLM gives the k-th answer seed + k
            max_tokens=sampling["max_new_tokens"],
            temperature=sampling["temperature"],
            top_k=sampling["top_k"],
            top_p=sampling["top_p"],
            logprobs=0,  # of the sampled token alone
            stop=sampling["stop"] or None,
            stop_token_ids=sampling["eos"],
            ignore_eos=True,  # the ends that the model's folder names: the trainer's alone end an answer
            skip_special_tokens=False,
            detokenize=bool(sampling["stop"]),
        )

    def step(self, admitted: list[StreamRequest], cancelled: list[str]) -> list[dict[str, Any]]:
        engine = self._engine.llm_engine
        for request in admitted:
            prompt = {"prompt_token_ids": request.prompt}
            engine.add_request(request.name, prompt, self._streaming(request.sampling))
        if cancelled:
            engine.abort_request(cancelled)
        outputs = engine.step() if engine.has_unfinished_requests() else []
        return [_grown(output) for output in outputs if output.outputs]

    def _streaming(self, sampling: dict[str, Any]) -> Any:
        from vllm.sampling_params import RequestOutputKind

        return self._parameters(
            seed=sampling["seed"],
            max_tokens=sampling["max_tokens"],
            temperature=sampling["temperature"],
            top_k=sampling["top_k"],
            top_p=sampling["top_p"],
            logprobs=sampling["likeliest"],
            stop_token_ids=sampling["eos"],
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    def score(self, rows: list[list[int]]) -> list[npt.NDArray[np.float32]]:
        settings = self._parameters(max_tokens=1, temperature=0, prompt_logprobs=0, ignore_eos=True, detokenize=False)
        prompts = [{"prompt_token_ids": row} for row in rows]
        outputs = self._engine.generate(prompts, [settings] * len(rows), use_tqdm=False)
        return [
            np.asarray(
                [
                    places[token].logprob
                    for token, places in zip(row[1:], list(output.prompt_logprobs)[1:], strict=True)
                ],
                np.float32,
            )
            for row, output in zip(rows, outputs, strict=True)
        ]

    def begin_weights(self, transport: dict[str, Any]) -> None:
        self._engine.collective_rpc("rollout_begin", args=(transport,))

    def load_bucket(self, bucket: dict[str, Any]) -> None:
        self._engine.collective_rpc("rollout_bucket", args=(bucket,))

    def finish_weights(self) -> None:
        self._engine.collective_rpc("rollout_finish")
        self._engine.reset_prefix_cache()  # computed with older weights

    def sleep(self) -> None:
        if self._sleeps:
            self._engine.sleep(level=2)

    def wake(self, tags: list[str]) -> None:
        if self._sleeps:
            self._engine.wake_up(tags=tags)


def _grown(output: Any) -> dict[str, Any]:
    (answer,) = output.outputs
    tokens = [int(token) for token in answer.token_ids]
    grown = {"name": output.request_id, "tokens": tokens, "ended": answer.finish_reason is not None}
    if answer.logprobs is None:
        return grown
    likeliest = [
        [float(places[token].logprob), *([each, float(known.logprob)] for each, known in _by_rank(places))]
        for token, places in zip(tokens, answer.logprobs, strict=True)
    ]
    return {**grown, "likeliest": likeliest}


def _by_rank(places: Any) -> list[tuple[int, Any]]:
    """Alternatives, the likeliest first; with the sampled token where it is not one of them."""
    return sorted(((int(token), known) for token, known in places.items()), key=lambda each: each[1].rank)


def _answer(output: Any) -> Answer:
    tokens = np.asarray(output.token_ids, np.int32)
    logprobs = [places[token].logprob for token, places in zip(output.token_ids, output.logprobs, strict=True)]
    return Answer(tokens, np.asarray(logprobs, np.float32).reshape(-1), output.finish_reason == "stop")
