"""What the page of a report card shows: the groups of its accuracy plot and table, and the plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.evaluate.reward.card_plots import accuracy_plot, probe_plot, reliability_plot
from rlhf.html.templates import render

PROBES = {
    "no_template": "no template",
    "trailing_space": "space after the prompt",
    "swapped_words": "prompt words swapped",
    "paraphrase": "prompt paraphrased",
    "half": "answer cut in half",
    "twice": "answer repeated",
    "closing": "polite closing added",
    "shuffled": "sentences shuffled",
    "empty": "empty answer",
    "no_eos": "no EOS",
}
BASELINES = {"longer_answer": "baseline: longer answer", "character_ngrams": "baseline: character n-grams"}


def render_page(card: Mapping[str, Any]) -> str:
    """The whole page of a card with at least one ranking."""
    groups = _groups(card)
    probes = [(title, card["probes"][name]) for name, title in PROBES.items() if name in card["probes"]]
    return render(
        "evaluate/reward/card.html.j2",
        card=card,
        groups=groups,
        probes=probes,
        accuracy_plot=accuracy_plot(groups),
        reliability_plot=reliability_plot(card["calibration"]["reliability"]),
        probe_plot=probe_plot(probes),
    )


def _groups(card: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Every accuracy with an interval, by its title."""
    rows: list[tuple[str, Mapping[str, Any]]] = [("model, all pairs", card)]
    rows += [(BASELINES[name], each) for name, each in card["shortcuts"]["baselines"].items()]
    rows += [(f"source: {name or '(none)'}", each) for name, each in card["by_source"].items()]
    rows += [
        (f"{each['min_tokens']:.0f} to {each['max_tokens']:.0f} answer tokens", each) for each in card["by_length"]
    ]
    rows += [(f"K = {name}", each) for name, each in card["by_k"].items()] if len(card["by_k"]) > 1 else []
    if len(card["by_rank_gap"]) > 1:
        rows += [(f"rank gap {name}", each) for name, each in card["by_rank_gap"].items()]
    return rows
