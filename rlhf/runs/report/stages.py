"""What the sections of the stages show: a reward model's card, the policy against its control group, curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.config.tripwires import TripwiresSection
from rlhf.evaluate.reward.card_plots import card_values
from rlhf.runs.plots import control_plot, panel_plots
from rlhf.runs.record import RunRecord
from rlhf.runs.report.verdict import stage_finding

Row = Mapping[str, Any]
Values = dict[str, Any]


def stage_values(run: RunRecord, *, brief: bool) -> Values:
    """One run in its stage's section; `brief` shows only the curves a reader wants first."""
    plots = panel_plots(run.metrics, run.trips, run.abandoned)
    first = [each for each in plots if run.stage in each[0].first]
    return {
        "run": run,
        "finding": stage_finding(run),
        "card": card_values(run.card, whole=False) if run.stage == "reward" and run.card else None,
        "control": {"plot": control_plot(run.control, run.metrics), "card": run.control} if run.control else None,
        "tripwires": _tripwires(run.config["tripwires"]) if run.config.get("tripwires") else None,
        "curves": first,
        "more_curves": [] if brief else [each for each in plots if each not in first],
        "brief": brief,
    }


def _tripwires(section: Row) -> Values:
    """How many wires there are, and which of them watch nothing."""
    wires = list(TripwiresSection().wires())
    off = [name for name in wires if section.get(name, {}).get("action") == "off"]
    if not section.get("held_out_reward") and "wireheading" not in off:
        off.append("wireheading (no tripwires.held_out_reward)")
    return {"number": len(wires), "off": off}
