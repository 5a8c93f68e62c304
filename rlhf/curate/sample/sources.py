"""The sources of answers: a local model folder on this device, or a chat endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import sha256_of
from rlhf.config.sections import SamplingSection
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import EndpointRequest
from rlhf.curate.sample.options import SampleOptions
from rlhf.data.encode import EncodedPrompt, Encoder
from rlhf.data.records import Prompt
from rlhf.data.templates import as_messages
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ModelError
from rlhf.models.loading import artifact_model_path, check_model_path, load_causal_lm, model_config
from rlhf.rollout.base import Rollout
from rlhf.rollout.transformers import TransformersRollout
from rlhf.rollout.vllm.frozen import frozen_engine, keys_as_flags

Answer = dict[str, Any]  # text, finished, and whatever else is known about one answer
LONGEST_PROMPT = 1024  # tokens, where the model has room for it


def model_folder(path: str) -> str:
    """The Hugging Face folder of a model or of a run.

    Raises: ModelError when there is none.
    """
    folder = artifact_model_path(path)
    check_model_path(folder, key="--model")
    return folder


def weights_hash(folder: str) -> str:
    """SHA-256 of a model folder, as in the manifests of runs; empty for a hub id."""
    return sha256_of(Path(folder)) if Path(folder).is_dir() else ""


@contextmanager
def local_model(folder: str, number: int, options: SampleOptions, ranks: Ranks) -> Iterator[LocalModel]:
    """A causal LM on this rank's device, drawn from by `options.rollout.backend` while the block runs.

    Raises: ModelError when it cannot be loaded, or is too short for the longest prompt and answer; ConfigError or
        EngineError for an engine that cannot be started, or fails.
    """
    tokenizer = load_tokenizer(folder)
    _check_room(model_config(folder), options.sampling, folder)
    if options.rollout.backend == "vllm":
        log = options.out.with_name(f"{options.out.name}.engine{number}-rank{ranks.rank}.log")
        sampling = options.sampling
        engine = frozen_engine(
            folder,
            options.rollout,
            ranks,
            max_length=sampling.max_prompt_tokens + sampling.max_new_tokens,
            max_answers=sampling.batch_size,
            dtype=options.dtype,
            eos=[tokenizer.eos_id],
            decode=tokenizer.text,
            log=log,
        )
        with closing(engine), keys_as_flags():
            yield LocalModel(engine, tokenizer, number, options)
        return
    packed = load_causal_lm(folder, dtype=options.dtype, device=ranks.device).to(ranks.device)
    rollout = TransformersRollout(packed.model.eval(), tokenizer.eos_id, tokenizer.text)
    yield LocalModel(rollout, tokenizer, number, options)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal LM with its chat template, number `number` of those that answer."""

    rollout: Rollout
    tokenizer: ChatTokenizer
    number: int
    options: SampleOptions

    def encoded(self, prompts: Sequence[Prompt]) -> tuple[list[EncodedPrompt], dict[str, int]]:
        """The prompts as this model reads them, numbered in order, and how many were truncated."""
        encoder = Encoder(self.tokenizer, self.options.sampling.max_prompt_tokens)
        encoded = encoder.prompts(prompts)
        report = encoder.report
        cut = {"cut prompts": report.rows_with_cut_prompt, "prompts without old turns": report.rows_with_dropped_turns}
        return encoded, cut

    def draw(self, prompts: Sequence[EncodedPrompt]) -> list[list[Answer]]:
        """K answers per prompt; random streams are keyed by (seed, model, row, sample) and nothing else."""
        asked = [(prompt, sample) for prompt in prompts for sample in range(self.options.k)]
        drawn = self.rollout.generate(
            [prompt.ids for prompt, _ in asked],
            [(self.options.seed, self.number, prompt.row, sample) for prompt, sample in asked],
            self.options.sampling,
        )
        answers = [
            {"text": self.tokenizer.text(ids.tolist()).strip(), "finished": bool(finished), "tokens": len(ids)}
            for ids, finished in zip(drawn.tokens, drawn.finished, strict=True)
        ]
        size = self.options.k
        return [answers[start : start + size] for start in range(0, len(answers), size)]


def _check_room(config: Any, sampling: SamplingSection, folder: str) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and sampling.max_prompt_tokens + sampling.max_new_tokens > positions:
        raise ModelError(
            f"{folder} has {positions} positions",
            where=f"--max-prompt-tokens {sampling.max_prompt_tokens} --max-new-tokens {sampling.max_new_tokens}",
            expected=f"a sum of at most {positions}",
            fix="lower one of them",
        )


def endpoint_answers(
    endpoint: Endpoint, rows: Sequence[tuple[int, Prompt]], options: SampleOptions
) -> Iterator[tuple[int, list[Answer]]]:
    """(row number, K answers) of each row in order, as they arrive.

    Raises: EndpointError on a permanent failure of the endpoint; the rows before it have been yielded.
    """
    answers = endpoint.complete_all(_requests(rows, options))
    for row, _ in rows:
        yield row, [_answer(next(answers)) for _ in range(options.k)]


def _requests(rows: Iterable[tuple[int, Prompt]], options: SampleOptions) -> Iterator[EndpointRequest]:
    sampling = options.sampling
    for row, prompt in rows:
        shown = as_messages(prompt.messages, keep_input=False)
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in shown]
        for sample in range(options.k):
            yield EndpointRequest(
                turns,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                sample=row * options.k + sample,
            )


def _answer(reply: Any) -> Answer:
    answer = {"text": reply.text.strip(), "finished": reply.finish_reason == "stop", "tokens": reply.completion_tokens}
    return {**answer, "refused": True} if reply.refused else answer
