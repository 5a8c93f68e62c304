"""The accuracies, probes and plots that pages show of a report card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from rlhf.evaluate.reward.shortcuts import shortcut_words
from rlhf.html.plots import BLUE, GREY, LINE, RED, figure, in_both, svg
from rlhf.html.words import Words, same

Named = Sequence[tuple[Words, Mapping[str, Any]]]
MAX_LABEL = 30
PREFERS_EMPTY = 0.1  # share of the answers; above it the verdict says so
RIGHT = Words("순서를 맞힌 쌍", "pairs in the right order")
COIN = Words("순서를 맞힌 쌍 (0.5 = 동전 던지기)", "pairs in the right order (0.5 = a coin)")
CONFIDENCE = Words("모델의 확신 (점의 넓이: 쌍의 수)", "confidence of the model (dot area: pairs)")
BEFORE, AFTER = Words("변형 전", "before"), Words("변형 후", "after")
PROBES = {
    "no_template": Words("템플릿 없음", "no template"),
    "trailing_space": Words("프롬프트 뒤 공백", "space after the prompt"),
    "swapped_words": Words("프롬프트 낱말 바꿈", "prompt words swapped"),
    "paraphrase": Words("프롬프트 바꿔 쓰기", "prompt paraphrased"),
    "half": Words("답변 절반", "answer cut in half"),
    "twice": Words("답변 두 번", "answer repeated"),
    "closing": Words("정중한 맺음말 추가", "polite closing added"),
    "shuffled": Words("문장 순서 섞음", "sentences shuffled"),
    "empty": Words("빈 답변", "empty answer"),
    "no_eos": Words("EOS 없음", "no EOS"),
}
RANK_GAP = Words("순위 차이 {}", "rank gap {}")
BASELINES = {
    "longer_answer": Words("지름길: 더 긴 답변", "baseline: longer answer"),
    "character_ngrams": Words("지름길: 글자 n-그램", "baseline: character n-grams"),
}


def card_values(card: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """A card with its accuracies and probes by title and its plots; `whole` has every accuracy."""
    groups = accuracy_groups(card, whole=whole)
    probes = [(title, card["probes"][name]) for name, title in PROBES.items() if name in card.get("probes", {})]
    return {
        "card": card,
        "groups": groups,
        "probes": probes,
        "accuracy_plot": in_both(partial(accuracy_plot, groups)),
        "reliability_plot": in_both(partial(reliability_plot, card["calibration"]["reliability"]))
        if "calibration" in card
        else None,
        "probe_plot": in_both(partial(probe_plot, probes)) if probes else None,
    }


def page_values(card: Mapping[str, Any]) -> dict[str, Any]:
    """What the page of a card shows beside it; a card without rankings has no verdict."""
    verdict = shortcut_words(card["shortcuts"]) if "shortcuts" in card else None
    return {**card_values(card, whole=True), "shortcut_verdict": verdict, "prefers_empty_above": PREFERS_EMPTY}


def accuracy_groups(card: Mapping[str, Any], *, whole: bool) -> list[tuple[Words, Mapping[str, Any]]]:
    """Every accuracy that has pairs, by its title; with `whole` those by length, K and rank gap too."""
    baselines = {"longer_answer": card.get("longer_answer", {}), **card.get("shortcuts", {}).get("baselines", {})}
    rows = [
        (Words("모든 쌍", "all pairs"), card),
        (Words("이웃한 순위", "neighbouring ranks"), card.get("neighbours", {})),
    ]
    rows += [(BASELINES[name], each) for name, each in baselines.items()]
    for name, each in card.get("by_source", {}).items():
        rows.append((Words(f"출처: {name or '(없음)'}", f"source: {name or '(none)'}"), each))
    for each in card["by_length"] if whole else ():
        tokens = (each["min_tokens"], each["max_tokens"])
        rows.append((Words("답변 토큰 {:.0f}~{:.0f}개", "{:.0f} to {:.0f} answer tokens").format(*tokens), each))
    for title, found in ((same("K = {}"), card["by_k"]), (RANK_GAP, card["by_rank_gap"])) if whole else ():
        rows += [(title.format(name), each) for name, each in found.items() if len(found) > 1]
    return [(title, each) for title, each in rows if each.get("num_pairs")]


def accuracy_plot(groups: Named, language: str) -> Markup:
    """A dot with its 95 % interval for each group; baselines in another colour."""
    with figure(0.6 + 0.3 * len(groups)) as (drawn, axes):
        for place, (name, each) in enumerate(groups):
            colour = RED if name in BASELINES.values() else BLUE
            axes.plot([each["low"], each["high"]], [place, place], color=colour, linewidth=2)
            axes.plot(each["accuracy"], place, "o", color=colour, markersize=6)
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
        _label(axes, [getattr(name, language) for name, _ in groups])
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(getattr(COIN, language))
        return svg(drawn)


def reliability_plot(table: Sequence[Mapping[str, Any]], language: str) -> Markup:
    """Accuracy against confidence, a dot per bin, its area by the number of pairs."""
    with figure(3.2) as (drawn, axes):
        most = max(row["num_pairs"] for row in table)
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1, linestyle="--")
        axes.scatter(
            [row["confidence"] for row in table],
            [row["accuracy"] for row in table],
            s=[20 + 160 * row["num_pairs"] / most for row in table],
            color=BLUE,
            zorder=3,
        )
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(min(0.45, *(row["accuracy"] - 0.05 for row in table)), 1.05)
        axes.set_xlabel(getattr(CONFIDENCE, language))
        axes.set_ylabel(getattr(RIGHT, language))
        return svg(drawn)


def probe_plot(probes: Named, language: str) -> Markup:
    """Accuracy before and after each probe."""
    with figure(0.9 + 0.34 * len(probes)) as (drawn, axes):
        for place, (_, each) in enumerate(probes):
            ends = [each["accuracy_before"], each["accuracy"]]
            axes.plot(ends, [place, place], color=LINE, linewidth=3, zorder=1)
        places = range(len(probes))
        before, after = ([each[name] for _, each in probes] for name in ("accuracy_before", "accuracy"))
        axes.scatter(before, places, color=GREY, s=36, zorder=2, label=getattr(BEFORE, language))
        axes.scatter(after, places, color=BLUE, s=36, zorder=3, label=getattr(AFTER, language))
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
        _label(axes, [getattr(name, language) for name, _ in probes])
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(getattr(RIGHT, language))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        return svg(drawn)


def _label(axes: Any, names: Sequence[str]) -> None:
    """One name per line, the first on top."""
    short = [name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), short)
    axes.set_ylim(len(names) - 0.5, -0.5)
