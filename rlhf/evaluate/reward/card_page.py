"""The report card as one page: plain HTML, inline SVG, nothing fetched; readable on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from rlhf.evaluate.reward.card_plots import accuracy_plot, probe_plot, reliability_plot
from rlhf.html.page import document, section, table

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


def render_page(card: Mapping[str, Any]) -> str:
    """The whole page of a card with at least one ranking."""
    body = "".join(
        (
            _head(card),
            section("Accuracy", accuracy_plot(_groups(card)), _accuracy_table(card)),
            section("Calibration", reliability_plot(card["calibration"]["reliability"]), _calibration_text(card)),
            section("Probes", probe_plot(_named_probes(card)), _probe_table(card)),
            section("Score and length", _length_text(card)),
            section("Leakage", _leakage_text(card)),
        )
    )
    return document("Reward model report card", body)


def _head(card: Mapping[str, Any]) -> str:
    shortcuts = card["shortcuts"]
    good = " good" if shortcuts["beats_shortcuts"] else ""
    notes = "".join(f"<br>{escape(text)}." for text in shortcuts["notes"].values())
    return (
        f'<h1>Reward model report card</h1><p class="path">{escape(card.get("model", ""))}<br>'
        f"{escape(', '.join(card.get('data', [])))}</p>"
        f'<p class="big">{card["accuracy"]:.3f} <small>[{card["low"]:.3f}, {card["high"]:.3f}] of '
        f"{card['num_pairs']:,} pairs in the right order, {card['num_rankings']:,} rankings</small></p>"
        f'<p class="verdict{good}">{escape(shortcuts["verdict"])}{notes}</p>'
    )


def _groups(card: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Every accuracy with an interval, by the name it is shown under."""
    names = {"longer_answer": "baseline: longer answer", "character_ngrams": "baseline: character n-grams"}
    rows: list[tuple[str, Mapping[str, Any]]] = [("model, all pairs", card)]
    rows += [(names[name], each) for name, each in card["shortcuts"]["baselines"].items()]
    rows += [(f"source: {name or '(none)'}", each) for name, each in card["by_source"].items()]
    rows += [
        (f"{each['min_tokens']:.0f} to {each['max_tokens']:.0f} answer tokens", each) for each in card["by_length"]
    ]
    rows += [(f"K = {name}", each) for name, each in card["by_k"].items()] if len(card["by_k"]) > 1 else []
    if len(card["by_rank_gap"]) > 1:
        rows += [(f"rank gap {name}", each) for name, each in card["by_rank_gap"].items()]
    return rows


def _accuracy_table(card: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{each['accuracy']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}", f"{each['num_pairs']:,}")
        for name, each in _groups(card)
    ]
    return table(("", "accuracy", "95 % interval", "pairs"), rows)


def _calibration_text(card: Mapping[str, Any]) -> str:
    found = card["calibration"]
    temperature = "no finite one" if found["temperature"] is None else f"{found['temperature']:.2f}"
    return (
        f"<p>Expected calibration error <b>{found['ece']:.3f}</b> ({found['bins']}). Negative log-likelihood "
        f"{found['nll']:.3f} nats a pair (a coin: 0.693); best temperature: {temperature}, "
        f"with {found['nll_at_temperature']:.3f} nats.</p>"
    )


def _named_probes(card: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(PROBES[name], card["probes"][name]) for name in PROBES if name in card["probes"]]


def _probe_table(card: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            f"{each['accuracy_before']:.3f}",
            f"{each['accuracy']:.3f}",
            f"{round(each['mean_score_change'], 2) + 0.0:+.2f}",  # never -0.00
            f"{each['share_flipped']:.0%}",
            f"{each['share_preferred_over_original']:.0%}" if "share_preferred_over_original" in each else "",
            f"{each['num_pairs']:,}",
        )
        for name, each in _named_probes(card)
    ]
    head = ("", "before", "after", "score change", "flipped", "damaged preferred", "pairs")
    return (
        "<p>Accuracy on the pairs a change touches. A change of the prompt should move little; the better answer, "
        "once cut, shuffled or emptied, should lose.</p>" + table(head, rows)
    )


def _length_text(card: Mapping[str, Any]) -> str:
    found, kendall = card["length_correlation"], card["kendall"]
    text = f"Correlation of score and answer tokens: Pearson {_number(found['pearson'])}, "
    text += f"Spearman {_number(found['spearman'])}."
    if kendall["num_rankings"]:
        text += f" Mean Kendall tau-b of {kendall['num_rankings']:,} rankings of three answers or more: "
        text += f"{_number(kendall['tau_b'])}."
    return f"<p>{text}</p>"


def _leakage_text(card: Mapping[str, Any]) -> str:
    found = card["leakage"]
    text = (
        f"<p>{found['num_prompts_seen']:,} of {found['num_prompts']:,} test prompts and {found['num_answers_seen']:,} "
        f"of {found['num_answers']:,} answers occur in training data of this model or its parents.</p>"
    )
    if found["accuracy_on_unseen"]:
        unseen = found["accuracy_on_unseen"]
        text += (
            f"<p>Accuracy on the other prompts: {unseen['accuracy']:.3f} "
            f"[{unseen['low']:.3f}, {unseen['high']:.3f}].</p>"
        )
    rows = [
        (f"{each['model']}: {each['path']}", f"{each['num_prompts']:,}", f"{each['num_answers']:,}")
        for each in found["checked"]
    ]
    text += table(("training file", "prompts", "answers"), rows) if rows else ""
    missing = [f"<li>{escape(each['path'])}: {escape(each['reason'])}</li>" for each in found["not_checked"]]
    return text + (f'<p>Not checked:</p><ul class="path">{"".join(missing)}</ul>' if missing else "")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"
