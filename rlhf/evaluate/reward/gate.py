"""Whether a reward model is accurate enough to optimise against, by the report card in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.artifacts.files import read_json
from rlhf.errors import ArtifactError
from rlhf.html.intervals import figure_text


def read_card(model: str | Path) -> dict[str, Any] | None:
    """The report card in a model folder; None where there is none."""
    file = Path(model) / "report_card.json"
    return read_json(file) if file.is_file() else None


def refusal(card: dict[str, Any] | None, minimum: float) -> str:
    """Why a card does not pass; empty when it does. It fails when the 95 % upper bound is below `minimum`."""
    if card is None:
        return "has no report_card.json"
    if not card.get("num_pairs"):
        return "has an empty report card: it was evaluated on no held-out pairs"
    if card["high"] < minimum:
        return f"is right on {figure_text(card, value='accuracy')} of {card['num_pairs']} held-out pairs"
    return ""


def require_accuracy(model: str, minimum: float | None) -> None:
    """Refuses a reward model whose card does not pass; with None every model passes.

    Raises: ArtifactError with the figures and how to continue without this check.
    """
    if minimum is None:
        return
    if reason := refusal(read_card(model), minimum):
        raise ArtifactError(
            f"{model} {reason}",
            where="reward.path",
            expected=f"a report card whose 95 % interval reaches reward.min_accuracy = {minimum}",
            fix="train a better one with data.eval set, or skip this check with reward.min_accuracy=null",
        )
