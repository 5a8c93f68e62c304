"""What the fits mean for large models on A100s, beside `rlhf plan`: planned, not measured.

The plan's time of the smallest of them on one card is the anchor; the measured exponent of time over parameters takes
it to the larger ones, ranks are taken as ideal. Where the plan and that differ, the plan counts what the small models
of the measurement do not show, or the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIZES, CARDS, CARD_GB, UTILISATION, STAGES = ("1.3b", "5.8b", "12.8b"), (1, 8, 64), 80, 0.35, ("sft", "reward", "ppo")


def outlook(curves: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows by stage, size and number of cards; `scaled_hours` is None where model size was not measured."""
    exponent = curves["parameters"]["fits"]["time_s"]["exponent"] if "parameters" in curves else None
    return [row for stage in STAGES for row in _rows(stage, exponent)]


def _rows(stage: str, exponent: float | None) -> Iterator[dict[str, Any]]:
    from rlhf.plan.fit import cheapest_fit
    from rlhf.plan.machine import GIGABYTE
    from rlhf.plan.roles import plan_memory, stage_shapes
    from rlhf.plan.states import Placement
    from rlhf.plan.table import setting
    from rlhf.plan.time import A100_FLOPS, estimate_run

    anchor: tuple[float, float] | None = None
    for size in SIZES:
        config = setting(size, stage, lora=False)
        shapes = stage_shapes(config)
        parameters = sum(shape.parameters for shape in shapes.values())
        for cards in CARDS:
            placement = Placement(cards, "gpu", "bfloat16", CARD_GB * GIGABYTE)
            plan = plan_memory(config, shapes, placement)
            effort = estimate_run(config, shapes, cards, utilisation=UTILISATION, flops_per_second=A100_FLOPS)
            fits = plan.peak <= CARD_GB * GIGABYTE
            change = None if fits else cheapest_fit(config, shapes, placement, CARD_GB * GIGABYTE)
            anchor = anchor or (parameters, effort.hours)
            scaled = None if exponent is None else anchor[1] * (parameters / anchor[0]) ** exponent / cards
            yield {
                "stage": stage, "size": size, "cards": cards, "planned_gb": plan.peak / GIGABYTE, "fits": fits,
                "change": None if change is None else change.words, "planned_hours": effort.hours,
                "scaled_hours": scaled, "rows": effort.rows,
            }  # fmt: skip
