"""The reward of an answer: a weighted sum of a reward model, Python functions and HTTP endpoints.

Functions and endpoints are called on rank 0, once for all answers, and the scores go to every rank: a source may
compare answers with one another, and one that is not deterministic still gives every rank the same scores.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf.config.reward_sources import MODEL_SOURCE, RewardFunction, RewardRole
from rlhf.config.schema import PpoConfig
from rlhf.data.encode import Encoder, Ids
from rlhf.data.packing import pack_trees
from rlhf.data.records import Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, TrainingError
from rlhf.train.policy.reward_endpoints import ask_endpoint
from rlhf.train.policy.roles import FrozenRole
from rlhf.train.policy.samples import Sample
from rlhf.train.run.sharing import read_shared

Ask = Callable[[list[str], list[str], list[bool]], object]
EXAMPLE = (["안녕하세요?"], ["네, 안녕하세요! 무엇을 도와드릴까요?"], [True])


@dataclass(frozen=True, slots=True)
class TextSource:
    """A source that scores text. `key` is its place in the configuration."""

    name: str
    key: str
    weight: float
    ask: Ask

    def scores(self, prompts: list[str], answers: list[str], finished: list[bool]) -> list[float]:
        """One finite score per answer.

        Raises: TrainingError, naming the source, when it fails or returns anything else.
        """
        try:
            given = self.ask(list(prompts), list(answers), list(finished))
            scores = [float(score) for score in given]  # type: ignore[attr-defined]
        except TrainingError:
            raise
        except Exception as error:
            problem = f"reward source {self.name!r} failed: {type(error).__name__}: {error}"
            raise TrainingError(problem, where=self.key, fix="correct it, then use --resume auto") from error
        if len(scores) != len(answers) or not all(map(math.isfinite, scores)):
            shown = f"{len(scores)} scores" if len(scores) != len(answers) else "a score that is not finite"
            raise TrainingError(
                f"reward source {self.name!r} gave {shown} for {len(answers)} answers",
                where=self.key,
                expected="a list with one finite number per answer",
                fix="correct it, then use --resume auto",
            )
        return scores


def text_sources(reward: RewardRole) -> list[TextSource]:
    """The sources besides the reward model.

    Raises: ConfigError for a function that cannot be imported.
    """
    found = []
    for number, function in enumerate(reward.functions):
        key = f"reward.functions.{number}"
        found.append(TextSource(function.shown_name, key, function.weight, _imported(function, key)))
    for number, endpoint in enumerate(reward.endpoints):
        key = f"reward.endpoints.{number}"
        found.append(TextSource(endpoint.shown_name, key, endpoint.weight, ask_endpoint(endpoint, key)))
    return found


def _imported(function: RewardFunction, key: str) -> Ask:
    module, _, name = function.path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{function.path} cannot be imported: {error}",
            where=f"{key}.path",
            expected="package.module:function, importable where the run is started",
            fix="install the package, or add its folder to PYTHONPATH",
        ) from error
    return lambda prompts, answers, finished: found(prompts, answers, finished, **function.options)


def check_sources(texts: Sequence[TextSource], ranks: Ranks) -> None:
    """Asks every source once about an example, so that a missing one is found before models are loaded.

    Raises: TrainingError, on every rank.
    """
    ranks.on_main(lambda: [source.scores(*EXAMPLE) for source in texts])


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of each answer in reward units: the weighted sum, and those of each source before its weight."""

    totals: list[float]
    by_source: dict[str, list[float]]

    def taken(self, items: Sequence[int]) -> Scores:
        """The scores of some answers."""
        by_source = {name: [found[item] for item in items] for name, found in self.by_source.items()}
        return Scores([self.totals[item] for item in items], by_source)

    def joined(self, more: Scores) -> Scores:
        """These scores, then those of `more`, which are of the same sources."""
        by_source = {name: [*found, *more.by_source[name]] for name, found in self.by_source.items()}
        return Scores([*self.totals, *more.totals], by_source)


@dataclass(frozen=True, slots=True)
class RewardSources:
    """Every source of reward. `tokenizers` are the actor's and the reward model's."""

    config: PpoConfig
    ranks: Ranks
    tokenizers: tuple[ChatTokenizer, ChatTokenizer]
    model: FrozenRole | None
    texts: Sequence[TextSource] = field(default=())

    def scores(self, samples: Sequence[Sample]) -> Scores:
        """Scores of all samples, the same on every rank.

        Raises: TrainingError, on every rank, when a source fails.
        """
        by_source: dict[str, list[float]] = {}
        weights = {MODEL_SOURCE: self.config.reward.weight} | {source.name: source.weight for source in self.texts}
        if self.model is not None:
            by_source[MODEL_SOURCE] = score_samples(samples, self.model, *self.tokenizers, self.config)
        if self.texts:
            prompts, answers = [sample.prompt.text for sample in samples], self._answers(samples)
            finished = [sample.finished for sample in samples]
            by_source |= self.ranks.on_main(
                lambda: {source.name: source.scores(prompts, answers, finished) for source in self.texts}
            )
        totals = [
            sum(weights[name] * scores[item] for name, scores in by_source.items()) for item in range(len(samples))
        ]
        return Scores(totals, by_source)

    def _answers(self, samples: Sequence[Sample]) -> list[str]:
        return [self.tokenizers[0].text(sample.response.tolist()) for sample in samples]


def score_samples(
    samples: Sequence[Sample],
    reward: FrozenRole,
    tokenizer: ChatTokenizer,
    scorer: ChatTokenizer,
    config: PpoConfig,
) -> list[float]:
    """The reward model's score of each answer, read at its last token.

    Token ids are used as they are if both tokenizers are the same; otherwise the text is rendered again.
    """
    if scorer is tokenizer or scorer.fingerprint() == tokenizer.fingerprint():  # hashing a vocabulary is not free
        trees = [(sample.prompt.ids, [sample.response]) for sample in samples]
    else:
        trees = [_rendered(sample, tokenizer, scorer, config.sampling.max_prompt_tokens) for sample in samples]
    lengths = [len(prompt) + len(answers[0]) for prompt, answers in trees]

    def read(items: list[int]) -> list[float]:
        scores: list[float] = reward.infer(pack_trees([trees[item] for item in items])).tolist()
        return scores

    return read_shared(lengths, max(config.train.micro_tokens, *lengths), reward.ranks, read)


def _rendered(
    sample: Sample, tokenizer: ChatTokenizer, scorer: ChatTokenizer, max_prompt_tokens: int
) -> tuple[Ids, list[Ids]]:
    """Prompt and answer in the reward model's own template, with EOS only if the answer had one."""
    prompt = Encoder(scorer, max_prompt_tokens).prompts([Prompt(sample.prompt.messages)])[0]
    opening = scorer.pieces(sample.prompt.messages, open_answer=True)[-1].text
    _, answer = scorer.piece_ids([opening, tokenizer.text(sample.response.tolist()) or " "])
    ending = [scorer.eos_id] if sample.finished else []
    return prompt.ids, [np.asarray(answer + ending, np.int32)]
