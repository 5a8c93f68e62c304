"""The reward of an answer: a weighted sum of a reward model, Python functions and HTTP endpoints.

Functions and endpoints are called on rank 0, once for all answers, and the scores go to every rank: a source may
compare answers with one another, and one that is not deterministic still gives every rank the same scores.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlhf.config.ppo import PpoConfig
from rlhf.config.reward_sources import MODEL_SOURCE, RewardFunction, RewardRole
from rlhf.data.packing import Tree, pack_trees
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, TrainingError
from rlhf.models.scoring import rendered_tree
from rlhf.train.policy.placed_rewards import EXPECTED, PlacedReward, on_tokens, placed_reward
from rlhf.train.policy.reward_endpoints import Asked, ask_endpoint
from rlhf.train.policy.roles import FrozenRole
from rlhf.train.policy.samples import Sample
from rlhf.train.run.sharing import read_shared

Ask = Callable[[Asked], object]
EXAMPLE = Asked(
    ["안녕하세요?"],
    ["네, 안녕하세요! 무엇을 도와드릴까요?"],
    [True],
    [[{"role": "user", "content": "안녕하세요?"}]],
)


@dataclass(frozen=True, slots=True)
class TextSource:
    """A source that scores text. `key` is its place in the configuration."""

    name: str
    key: str
    weight: float
    ask: Ask

    def rewards(self, asked: Asked) -> list[PlacedReward]:
        """What each answer earns: a finite score, or finite rewards at offsets.

        Raises: TrainingError, naming the source, when it fails or returns anything else.
        """
        try:
            given = list(self.ask(asked))  # type: ignore[call-overload]
        except TrainingError:
            raise
        except Exception as error:
            problem = f"reward source {self.name!r} failed: {type(error).__name__}: {error}"
            raise TrainingError(problem, where=self.key, fix="correct it, then use --resume auto") from error
        if len(given) != len(asked.answers):
            raise self._refused(f"{len(given)} scores for {len(asked.answers)} answers")
        found = []
        for number, (each, answer) in enumerate(zip(given, asked.answers, strict=True)):
            try:
                found.append(placed_reward(each, answer))
            except (TypeError, ValueError) as error:
                raise self._refused(f"no valid reward for answer {number}: {error}") from error
        return found

    def _refused(self, what: str) -> TrainingError:
        problem, fix = f"reward source {self.name!r} gave {what}", "correct it, then use --resume auto"
        return TrainingError(problem, where=self.key, expected=EXPECTED, fix=fix)


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
    return lambda asked: found(list(asked.prompts), list(asked.answers), list(asked.finished), **function.options)


def check_sources(texts: Sequence[TextSource], ranks: Ranks) -> None:
    """Asks every source once about an example, so that a missing one is found before models are loaded.

    Raises: TrainingError, on every rank.
    """
    ranks.on_main(lambda: [source.rewards(EXAMPLE) for source in texts])


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of each answer in reward units.

    totals: the weighted sum of all rewards; by_source: the sum of each source's before its weight; ends: the part of
    `totals` paid at the last token; steps: the rest, by the index of the response token that earns it.
    """

    totals: list[float]
    by_source: dict[str, list[float]]
    ends: list[float]
    steps: list[dict[int, float]]

    def taken(self, items: Sequence[int]) -> Scores:
        """The scores of some answers."""
        by_source = {name: [found[item] for item in items] for name, found in self.by_source.items()}
        return Scores(
            totals=[self.totals[item] for item in items],
            by_source=by_source,
            ends=[self.ends[item] for item in items],
            steps=[self.steps[item] for item in items],
        )

    def joined(self, more: Scores) -> Scores:
        """These scores, then those of `more`, which are of the same sources."""
        by_source = {name: [*found, *more.by_source[name]] for name, found in self.by_source.items()}
        return Scores(
            totals=[*self.totals, *more.totals],
            by_source=by_source,
            ends=[*self.ends, *more.ends],
            steps=[*self.steps, *more.steps],
        )


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
        found: dict[str, list[PlacedReward]] = {}
        weights = {MODEL_SOURCE: self.config.reward.weight} | {source.name: source.weight for source in self.texts}
        if self.model is not None:
            scored = score_samples(samples, self.model, *self.tokenizers, self.config)
            found[MODEL_SOURCE] = list(map(PlacedReward, scored))
        if self.texts:
            found |= self.ranks.on_main(lambda: self._text_rewards(samples))
        placed = [
            self._placed(sample, [(weights[name], rewards[item]) for name, rewards in found.items()])
            for item, sample in enumerate(samples)
        ]
        return Scores(
            totals=[sum(steps.values(), start=end) for end, steps in placed],
            by_source={name: [reward.total for reward in rewards] for name, rewards in found.items()},
            ends=[end for end, _ in placed],
            steps=[steps for _, steps in placed],
        )

    def _placed(self, sample: Sample, rewards: Sequence[tuple[float, PlacedReward]]) -> tuple[float, dict[int, float]]:
        """The weighted sum of (weight, reward) at the last token of a sample, and at earlier ones."""
        final, steps = 0.0, {}  # type: float, dict[int, float]
        for weight, reward in rewards:
            end, earlier = on_tokens(reward, sample.response, self.tokenizers[0])
            final += weight * end
            for token, value in earlier.items():
                steps[token] = steps.get(token, 0.0) + weight * value
        return final, steps

    def _text_rewards(self, samples: Sequence[Sample]) -> dict[str, list[PlacedReward]]:
        tokenizer = self.tokenizers[0]
        asked = Asked(
            prompts=[sample.prompt.text for sample in samples],
            answers=[tokenizer.text(sample.response.tolist()) for sample in samples],
            finished=[sample.finished for sample in samples],
            messages=[[message.as_row() for message in sample.prompt.messages] for sample in samples],
            ids=[(sample.prompt.ids, sample.response) for sample in samples],
            tokenizer=tokenizer,
        )
        return {source.name: source.rewards(asked) for source in self.texts}


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
        trees: list[Tree] = [(sample.prompt.ids, [sample.response]) for sample in samples]
    else:
        longest = config.sampling.max_prompt_tokens
        texts = [tokenizer.text(sample.response.tolist()) for sample in samples]
        trees = [
            rendered_tree(scorer, sample.prompt.messages, [text], [sample.finished], longest)
            for sample, text in zip(samples, texts, strict=True)
        ]
    lengths = [len(prompt) + len(answers[0]) for prompt, answers in trees]

    def read(items: list[int]) -> list[float]:
        scores: list[float] = reward.infer(pack_trees([trees[item] for item in items])).tolist()
        return scores

    return read_shared(lengths, max(config.train.micro_tokens, *lengths), reward.ranks, read)
