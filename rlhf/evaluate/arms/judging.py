"""The answers of every arm to the held-out prompts: scored by the judge, measured, and their KL to the SFT model.

What is found of an arm is kept beside its answers, and read again as long as model, judge, prompts and settings are the
same. One model is in memory at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf.artifacts.files import read_json, write_json
from rlhf.config.sections import SamplingSection
from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sources import model_folder, weights_hash
from rlhf.data.embedded import data_path
from rlhf.data.encode import Encoder
from rlhf.data.readers import locate, sha256_of
from rlhf.data.records import Prompt
from rlhf.data.tokenizer import load_tokenizer
from rlhf.evaluate.answers.generation import AnswerSet, Generations, generate
from rlhf.evaluate.answers.measures import Measured, measure
from rlhf.evaluate.answers.policy import answer_logprobs, answer_prompts
from rlhf.evaluate.intervals import Floats
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.models.scoring import load_scorer

Topic = Callable[[str, str], bool]  # whether an answer is about what its prompt asks
KL_SEED = 2**31  # added to the seed: random streams apart from those of the answers that are judged


@dataclass(frozen=True, slots=True)
class JudgedArm:
    """One arm on P prompts with K answers each.

    Attributes:
        scores: of the judge, mean over the answers to a prompt, [P] reward units.
        kl: log p(arm) - log p(SFT model) of one answer to each prompt sampled at temperature 1, [P] nats; zeros for
            the SFT model.
        on_topic: share of the answers to a prompt that are about what it asks, [P]; None where no rule knows.
    """

    answered: AnswerSet
    scores: Floats
    kl: Floats
    measured: Measured
    on_topic: Floats | None


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Who judges which models on what.

    Attributes:
        models: run or model folder by arm; the first is the SFT model that the KL is measured to.
        judge: folder of the reward model.
        out: folder of the answers, one folder per arm.
        topic: tells whether an answer is about what its prompt asks; None where the prompts are not known to a rule.
    """

    models: Mapping[str, str]
    judge: str
    prompts: str
    limit: int | None
    samples: int
    sampling: SamplingSection
    seed: int
    out: Path
    topic: Topic | None = None

    def options(self, arm: str) -> SampleOptions:
        """How an arm is asked: alike for all, so that their random streams are the same."""
        return SampleOptions(
            self.prompts,
            self.out / arm,
            (self.models[arm],),
            k=self.samples,
            seed=self.seed,
            limit=self.limit,
            sampling=self.sampling,
        )


def judge_arms(request: JudgeRequest) -> tuple[Generations, dict[str, JudgedArm]]:
    """Every arm's answers, and the arms judged, in the order of the request.

    Raises: DataError, ModelError or ArtifactError for what cannot be read; what was found before is kept.
    """
    sets, judged = [], {}
    for arm in request.models:
        folder = request.out / arm
        folder.mkdir(parents=True, exist_ok=True)
        generations = generate(request.options(arm), folder)
        answered = replace(generations.sets[0], name=arm)
        judged[arm] = _judged(request, arm, answered, generations.prompts)
        sets.append(answered)
    return replace(generations, sets=sets), judged


def _judged(request: JudgeRequest, arm: str, answered: AnswerSet, prompts: Sequence[Prompt]) -> JudgedArm:
    found = _kept(request, arm, answered, prompts)
    topic = None if request.topic is None else topic_shares(request.topic, prompts, answered.answers)
    scores = np.asarray(found["scores"], dtype=float).mean(1)
    measured = measure(answered.answers, answered.finished)
    return JudgedArm(answered, scores, np.asarray(found["kl"], dtype=float), measured, topic)


def _kept(request: JudgeRequest, arm: str, answered: AnswerSet, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Scores [P][K] and KL [P], computed where they are not kept from before."""
    sft, *_ = request.models
    reference = model_folder(request.models[sft])
    identity = {
        "model": answered.sha256,
        "reference": weights_hash(reference),
        "judge": weights_hash(request.judge),
        "prompts": sha256_of(locate(data_path(request.prompts))),
        "limit": request.limit,
        "samples": request.samples,
        "sampling": request.sampling.model_dump(exclude={"batch_size"}),
        "seed": request.seed,
    }
    file = request.out / arm / "judged.json"
    if file.is_file() and all(identity[key] for key in ("model", "reference", "judge")):
        found: dict[str, Any] = read_json(file)
        if found["identity"] == identity:
            return found
    scores = judge_scores(request.judge, prompts, answered)
    kl = [0.0] * len(prompts)
    if arm != sft:
        folder = model_folder(request.models[arm])
        kl = sampled_kl(folder, reference, prompts, request.sampling, request.seed + KL_SEED)
    found = {"identity": identity, "scores": scores, "kl": kl}
    write_json(file, found)
    return found


def judge_scores(judge: str, prompts: Sequence[Prompt], answered: AnswerSet) -> list[list[float]]:
    """The judge's scores of all answers, [P][K]; an answer that was cut has no EOS."""
    scorer = load_scorer(judge, key="judge.model")
    trees = [
        scorer.tree(prompt.messages, texts, finished)
        for prompt, texts, finished in zip(prompts, answered.answers, answered.finished, strict=True)
    ]
    scores = scorer.scores(trees)
    del scorer
    _free_memory()
    return scores


def sampled_kl(
    folder: str, reference: str, prompts: Sequence[Prompt], sampling: SamplingSection, seed: int
) -> list[float]:
    """log p(policy) - log p(reference) in nats of one answer to each prompt; their mean estimates
    KL(policy || reference) per sequence.

    Answers are drawn from the whole distribution at temperature 1, whatever `sampling` says, by weights in
    bfloat16 on a GPU and in float32 on a CPU.
    """
    whole = sampling.model_copy(update={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "stop": []})
    tokenizer = load_tokenizer(folder)
    encoded = Encoder(tokenizer, whole.max_prompt_tokens).prompts(prompts)
    policy = _policy(folder)
    drawn = answer_prompts(policy, tokenizer, encoded, whole, seed=seed)
    pairs = [(each.prompt.ids, each.ids) for each in drawn]
    logprobs = partial(answer_logprobs, pairs=pairs, temperature=1.0)
    own = logprobs(policy)
    del policy
    _free_memory()
    found = np.subtract(own, logprobs(_policy(reference))).tolist()
    _free_memory()
    return [float(each) for each in found]


def topic_shares(topic: Topic, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> Floats:
    """Share of the answers to each prompt that are about what it asks, [P]."""
    return np.asarray(
        [
            np.mean([topic(prompt.messages[-1].content, text) for text in texts])
            for prompt, texts in zip(prompts, answers, strict=True)
        ]
    )


def _policy(folder: str) -> PackedCausalLM:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "float32" if device.type == "cpu" else "bfloat16"
    return load_causal_lm(folder, dtype=dtype, device=device).to(device)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
