"""The answers of every arm to the held-out prompts: scored by the judge, measured, and their KL to the SFT model.

What is found of an arm is kept beside its answers, and read again as long as models, prompts and settings are the same.
One model is in memory at a time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from rlhf.evaluate.arms.statistics import ArmComparison
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
class JudgedArms:
    """All answers, the arms judged (the SFT model first), and people's votes where there are any."""

    generations: Generations
    arms: dict[str, JudgedArm]
    votes: Sequence[ArmComparison] = ()


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


def judge_arms(request: JudgeRequest) -> JudgedArms:
    """Every arm's answers, and the arms judged, in the order of the request, without votes.

    Raises: DataError, ModelError or ArtifactError for what cannot be read; what was found before is kept.
    """
    sets = []
    for arm in request.models:
        (request.out / arm).mkdir(parents=True, exist_ok=True)
        generations = generate(request.options(arm), request.out / arm)
        sets.append(replace(generations.sets[0], name=arm))
    _free_memory()
    prompts = generations.prompts
    scores, kl = _all_scores(request, prompts, sets), _all_kl(request, prompts, sets)
    arms = {each.name: _judged(request, prompts, each, scores[each.name], kl[each.name]) for each in sets}
    return JudgedArms(replace(generations, sets=sets), arms)


def _judged(
    request: JudgeRequest, prompts: Sequence[Prompt], answered: AnswerSet, scores: list[list[float]], kl: list[float]
) -> JudgedArm:
    topic = None if request.topic is None else topic_shares(request.topic, prompts, answered.answers)
    measured = measure(answered.answers, answered.finished)
    return JudgedArm(answered, np.asarray(scores).mean(1), np.asarray(kl), measured, topic)


class _Kept:
    """A file of an arm with what was found of it, worth as long as what it was found by is the same."""

    def __init__(self, request: JudgeRequest, answered: AnswerSet, name: str, other: str) -> None:
        self.file = request.out / answered.name / f"{name}.json"
        self.identity = {
            "model": answered.sha256,
            name: weights_hash(other),
            "prompts": sha256_of(locate(data_path(request.prompts))),
            "limit": request.limit,
            "samples": request.samples,
            "sampling": request.sampling.model_dump(exclude={"batch_size"}),
            "seed": request.seed,
        }
        self.known = bool(self.identity["model"] and self.identity[name])  # a hub id has no hash

    def read(self) -> Any:
        """What was found; None where it is another's, or not there."""
        found = read_json(self.file) if self.file.is_file() and self.known else {}
        return found["found"] if found.get("identity") == self.identity else None

    def write(self, found: Any) -> None:
        write_json(self.file, {"identity": self.identity, "found": found})


def _all_scores(request: JudgeRequest, prompts: Sequence[Prompt], sets: Sequence[AnswerSet]) -> dict[str, Any]:
    """The judge's scores [P][K] by arm; an answer that was cut has no EOS."""
    kept = {each.name: _Kept(request, each, "scores", request.judge) for each in sets}
    found = {name: each.read() for name, each in kept.items()}
    missing = [each for each in sets if found[each.name] is None]
    if missing:
        scorer = load_scorer(request.judge, key="judge.model")
        for each in missing:
            rows = zip(prompts, each.answers, each.finished, strict=True)
            trees = [scorer.tree(prompt.messages, texts, finished) for prompt, texts, finished in rows]
            found[each.name] = scorer.scores(trees)
            kept[each.name].write(found[each.name])
        del scorer
        _free_memory()
    return found


def _all_kl(request: JudgeRequest, prompts: Sequence[Prompt], sets: Sequence[AnswerSet]) -> dict[str, Any]:
    """The log ratio of a sampled answer to each prompt [P] by arm; zeros for the SFT model."""
    sft, *arms = sets
    reference = model_folder(sft.path)
    kept = {each.name: _Kept(request, each, "kl", reference) for each in arms}
    found: dict[str, Any] = {sft.name: [0.0] * len(prompts)} | {name: each.read() for name, each in kept.items()}
    missing = {each.name: model_folder(each.path) for each in arms if found[each.name] is None}
    ratios = sampled_ratios(list(missing.values()), reference, prompts, request.sampling, request.seed + KL_SEED)
    for name, each in zip(missing, ratios, strict=True):
        found[name] = each
        kept[name].write(each)
    return found


def sampled_ratios(
    folders: Sequence[str], reference: str, prompts: Sequence[Prompt], sampling: SamplingSection, seed: int
) -> list[list[float]]:
    """log p(policy) - log p(reference) in nats of one answer of each policy to each prompt, [policies][P]; the mean of
    a row estimates KL(policy || reference) per sequence.

    Answers are drawn from the whole distribution at temperature 1, whatever `sampling` says, by weights in bfloat16 on
    a GPU and in float32 on a CPU.
    """
    whole = sampling.model_copy(update={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "stop": []})
    drawn = [_drawn(folder, prompts, whole, seed) for folder in folders]
    if not drawn:
        return []
    before = _policy(reference)
    ratios = [np.subtract(own, answer_logprobs(before, pairs, temperature=1.0)).tolist() for pairs, own in drawn]
    del before
    _free_memory()
    return ratios


def _drawn(folder: str, prompts: Sequence[Prompt], whole: SamplingSection, seed: int) -> tuple[list[Any], list[float]]:
    """(prompt, answer) of one answer to each prompt, and its log-probability under the model that gave it."""
    tokenizer = load_tokenizer(folder)
    policy = _policy(folder)
    encoded = Encoder(tokenizer, whole.max_prompt_tokens).prompts(prompts)
    pairs = [(each.prompt.ids, each.ids) for each in answer_prompts(policy, tokenizer, encoded, whole, seed=seed)]
    logprobs = answer_logprobs(policy, pairs, temperature=1.0)
    del policy
    _free_memory()
    return pairs, logprobs


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
