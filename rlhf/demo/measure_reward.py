"""The quickstart's reward model: its report card, and what it knows beside the register of an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlhf.artifacts.files import read_json
from rlhf.artifacts.manifest import manifest_of
from rlhf.data.embedded import data_path
from rlhf.data.encode import Encoder
from rlhf.data.packing import trees_of
from rlhf.data.records import Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import load_tokenizer
from rlhf.demo.world.rules import Rules, korean_rules
from rlhf.evaluate.reward.accuracy import Pair, ScoredRanking, outcome, untied_pairs
from rlhf.evaluate.reward.leakage import training_rankings
from rlhf.evaluate.reward.shortcuts import shortcut_section
from rlhf.models.scoring import scoring_model, trained_length, tree_scores

Summary = dict[str, Any]
HELD_OUT = "demo:rankings_dev"


def reward_summary(model: Path, *, own: bool) -> Summary:
    """Held-out accuracy from the report card that stage 2 left, and with the demo's data that of its shortcuts."""
    card = read_json(model / "report_card.json")
    return {
        "accuracy": card["accuracy"],
        "accuracy_interval": [card["low"], card["high"]],
        "accuracy_neighbours": card["neighbours"]["accuracy"],
        "accuracy_by_source": {name: each["accuracy"] for name, each in card["by_source"].items()},
        "longer_answer_accuracy": card["longer_answer"]["accuracy"],
        "num_pairs": card["num_pairs"],
        **({} if own else topic_summary(model)),
    }


def topic_summary(model: Path) -> Summary:
    """Accuracy on held-out pairs that differ in topic alone, and the card's shortcuts.

    accuracy_topic: on pairs of one register of which one answer is to the question and the other beside it.
    shortcut_ngram: of a linear model on character n-grams of the answers, on all pairs; verdict: against the better
    shortcut, in words.
    """
    rankings = read_records(DataSource(data_path(HELD_OUT)), Ranking).records
    encoded = Encoder(load_tokenizer(str(model)), trained_length(str(model))).rankings(rankings)
    scores = tree_scores(scoring_model(str(model)), trees_of(encoded))
    rows = [
        ScoredRanking(item.ranks, tuple(each), item.source, prompt=item.prompt.tobytes().hex())
        for item, each in zip(encoded, scores, strict=True)
    ]
    lengths = [list(map(len, item.answers)) for item in encoded]
    shortcuts = shortcut_section(rows, lengths, rankings, training_rankings(manifest_of(str(model))))
    rules = korean_rules()
    topic = [
        outcome(row.difference(pair))
        for row, ranking in zip(rows, rankings, strict=True)
        for pair in untied_pairs(row.ranks)
        if differs_in_topic(ranking, pair, rules)
    ]
    return {
        "accuracy_topic": float(np.mean(topic)),
        "num_topic_pairs": len(topic),
        "shortcut_ngram": shortcuts["baselines"]["character_ngrams"]["accuracy"],
        "beats_shortcuts": shortcuts["beats_shortcuts"],
        "verdict": shortcuts["verdict"],
    }


def differs_in_topic(ranking: Ranking, pair: Pair, rules: Rules) -> bool:
    """Whether both answers of a pair speak in one register, and only one is to the question."""
    prompt = ranking.prompt[-1].content
    better, worse = (ranking.responses[answer] for answer in (pair.better, pair.worse))
    same_register = rules.registers(better) == rules.registers(worse)
    return same_register and rules.answers(prompt, better) != rules.answers(prompt, worse)
