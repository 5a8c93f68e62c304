"""Whether a reward model is good enough to optimise against, by the report card it carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.artifacts.files import read_json
from rlhf.errors import ArtifactError


def read_card(model: str | Path) -> dict[str, Any] | None:
    """The report card in a model folder; None where there is none."""
    file = Path(model) / "report_card.json"
    return read_json(file) if file.is_file() else None


def refusal(card: dict[str, Any] | None, minimum: float) -> str:
    """Why a card does not pass; empty when it does. It fails when even the interval's upper end is below `minimum`."""
    if card is None:
        return "has no report_card.json"
    if not card.get("num_pairs"):
        return "has an empty report card: it was judged on no held-out pairs"
    if card["high"] < minimum:
        interval = f"[{card['low']:.3f}, {card['high']:.3f}]"
        return f"is right on {card['accuracy']:.3f} {interval} of {card['num_pairs']} held-out pairs"
    return ""


def require_accuracy(model: str, minimum: float | None) -> None:
    """Refuses a reward model whose card does not pass; None lets every model through.

    Raises: ArtifactError with the figures and how to go on all the same.
    """
    if minimum is None:
        return
    if reason := refusal(read_card(model), minimum):
        raise ArtifactError(
            f"{model} {reason}",
            where="reward.path",
            expected=f"a report card whose 95 % interval reaches reward.min_accuracy = {minimum}",
            fix="train a better one with data.eval set, or go on all the same with reward.min_accuracy=null",
        )
