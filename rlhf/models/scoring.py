"""Scores of a reward model, by packed forward passes in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml

from rlhf.config.flag_values import Dtype
from rlhf.data.encode import Encoder, EncodeReport, Ids
from rlhf.data.packing import Tree, pack_trees
from rlhf.data.records import Message, Prompt
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.errors import ModelError
from rlhf.models.loading import PackedScalarModel, artifact_model_path, check_model_path, load_scalar_model
from rlhf.models.packed_forward import MICRO_TOKENS, forward_packed, in_micro_batches
from rlhf.models.stored_dtype import evaluation_dtype

DEFAULT_MAX_LENGTH = 1024


def scoring_model(path: str, dtype: Dtype = "auto") -> PackedScalarModel:
    """The reward model of a folder on this machine's device; see `evaluation_dtype` for "auto".

    Raises: ModelError when it cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_scalar_model(path, dtype=evaluation_dtype(path, dtype, device), device=device).to(device)


def tree_scores(
    reward: PackedScalarModel,
    trees: Sequence[Tree],
    advance: Callable[[int], None] = lambda count: None,
    micro_tokens: int = MICRO_TOKENS,
) -> list[list[float]]:
    """The scores of each tree's answers, in order, in reward units.

    Args:
        advance: called with the number of trees in each micro-batch that is done.
        micro_tokens: of one forward pass, unless a tree is longer.
    """

    def read(items: list[int]) -> list[list[float]]:
        flat = iter(forward_packed(reward, pack_trees([trees[item] for item in items])).tolist())
        advance(len(items))
        return [[next(flat) for _ in trees[item][1]] for item in items]

    return in_micro_batches([len(prompt) + sum(map(len, answers)) for prompt, answers in trees], read, micro_tokens)


def answer_scores(reward: PackedScalarModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """The score of each (prompt, answer), in reward units."""
    return [score for (score,) in tree_scores(reward, [(prompt, [answer]) for prompt, answer in pairs])]


def trained_length(model: str) -> int:
    """Tokens of a sequence in training, from the run's config.yaml; 1024 for a model away from its run folder."""
    file = Path(model).parent / "config.yaml"
    if not file.is_file():
        return DEFAULT_MAX_LENGTH
    try:
        return int(yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["max_length"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"no data.max_length can be read from {file}: {error!r}", fix="use a run folder made by stage 2"
        ) from error


def divided(tree: Tree, max_tokens: int) -> list[Tree]:
    """Parts of at most `max_tokens`, or of one answer. Answers do not attend to each other: no score changes."""
    prompt, answers = tree
    parts: list[list[Ids]] = [[]]
    room = max_tokens - len(prompt)
    for answer in answers:
        if parts[-1] and sum(map(len, parts[-1])) + len(answer) > room:
            parts.append([])
        parts[-1].append(answer)
    return [(prompt, part) for part in parts]


@dataclass(frozen=True, slots=True)
class RewardScorer:
    """A reward model that scores texts: the answers to a prompt in one forward pass, which reads the prompt once.

    max_length: tokens of prompt and answer; what is longer is cut as in training, and counted in `report`.
    """

    folder: str
    model: PackedScalarModel
    tokenizer: ChatTokenizer
    max_length: int
    report: EncodeReport = field(default_factory=EncodeReport)

    def tree(self, prompt: Sequence[Message], answers: Sequence[str], finished: Sequence[bool]) -> Tree:
        """A prompt and its answers as ids, rendered as in training; an answer that did not finish has no EOS.

        An empty answer is EOS alone. Raises: DataError for turns that no stage would train on.
        """
        encoder = Encoder(self.tokenizer, self.max_length, report=self.report)
        said = [text if text.strip() else "." for text in answers]  # a stand-in: templates refuse an empty turn
        before, after = encoder.answered(tuple(prompt), said)
        ending = np.asarray([self.tokenizer.eos_id], np.int32)
        ids = [
            ending if not text.strip() else each if done else _without(each, self.tokenizer.eos_id)
            for text, each, done in zip(answers, after, finished, strict=True)
        ]
        return before, ids

    def scores(self, trees: Sequence[Tree], micro_tokens: int = MICRO_TOKENS) -> list[list[float]]:
        """The scores of each tree's answers in reward units, by forward passes of at most `micro_tokens`, or of one
        longer answer.

        Raises: ModelError for a score that is not finite.
        """
        parts = [divided(tree, micro_tokens) for tree in trees]
        flat = iter(tree_scores(self.model, [part for each in parts for part in each], micro_tokens=micro_tokens))
        found = [[score for _ in each for score in next(flat)] for each in parts]
        if not all(math.isfinite(score) for each in found for score in each):
            raise ModelError(f"a score of {self.folder} is not finite", fix="check the model, or load it in float32")
        return found


def load_scorer(path: str, dtype: Dtype = "auto", *, key: str, max_length: int | None = None) -> RewardScorer:
    """The reward model of a run or a folder; `max_length` defaults to that of its training.

    Raises: ModelError or TokenizerError, naming the flag `key`, when it cannot be used.
    """
    folder = artifact_model_path(path)
    check_model_path(folder, key=key)
    tokenizer = load_tokenizer(folder)
    return RewardScorer(folder, scoring_model(folder, dtype), tokenizer, max_length or trained_length(folder))


def rendered_tree(
    tokenizer: ChatTokenizer,
    prompt: Sequence[Message],
    answers: Sequence[str],
    finished: Sequence[bool],
    max_prompt_tokens: int,
) -> Tree:
    """Answers as text in the reward model's own template, each with EOS only if it had one; none is cut.

    The text of special tokens is left out, and an empty answer is EOS alone, as `RewardScorer.tree` has them. Raises:
    DataError for turns that no stage would train on.
    """
    encoder = Encoder(tokenizer, max_prompt_tokens)
    before = encoder.prompts([Prompt(tuple(prompt))])[0].ids
    opening = tokenizer.pieces(tuple(prompt), open_answer=True)[-1].text
    ending = [tokenizer.eos_id]
    said = [encoder.without_special(text) for text in answers]
    ids = [
        tokenizer.piece_ids([opening, text])[1] + ending * done if text.strip() else ending
        for text, done in zip(said, finished, strict=True)
    ]
    return before, [np.asarray(answer, np.int32) for answer in ids]


def _without(ids: Ids, eos: int) -> Ids:
    """An answer's ids without the EOS at their end, which one that was cut has not."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == eos else ids
