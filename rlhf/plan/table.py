"""The table of the documentation: every Polyglot-ko size, every stage, A100s of 40 and 80 GB, one and eight of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf.config.schema import StageConfig
from rlhf.config.stages import CHAIN, STAGES
from rlhf.plan.fit import cheapest_fit
from rlhf.plan.machine import GIGABYTE
from rlhf.plan.render import gigabytes, markdown, needed
from rlhf.plan.roles import plan_memory, stage_shapes
from rlhf.plan.shapes import BUILT_IN
from rlhf.plan.states import Placement

CARDS, COUNTS = (40, 80), (1, 8)
NOTE = (
    "Planned, not measured: GB (1e9 bytes) per GPU at the peak, and the cheapest change where that does not fit. "
    "bfloat16, ZeRO 2, checkpointed activations, full rows of 4,096 tokens; stage 3 with four models of one size, "
    "256 + 256 tokens and 16 answers at a time. CPU memory is per rank.\n\n"
)


def table() -> str:
    """Markdown, made by `rlhf plan --table`."""
    return NOTE + markdown(list(_rows()))


def _rows() -> Iterator[dict[str, Any]]:
    for size in BUILT_IN:
        for stage in CHAIN:
            for learns in ("all weights", "LoRA 16"):
                for count in COUNTS:
                    yield _row(size, stage, learns, count)


def _row(size: str, stage: str, learns: str, count: int) -> dict[str, Any]:
    config = setting(size, stage, lora=learns != "all weights")
    shapes, placement = stage_shapes(config), Placement(count, "gpu", "bfloat16")
    plan = plan_memory(config, shapes, placement)
    row: dict[str, Any] = {"model": f"Polyglot-ko {size.upper()}", "stage": stage, "trained": learns, "GPUs": count}
    row["GB per GPU"] = gigabytes(plan.peak)
    for card in CARDS:
        row[f"A100-{card}G"] = "fits"
        if plan.peak > card * GIGABYTE:
            found = cheapest_fit(config, shapes, placement, card * GIGABYTE)
            row[f"A100-{card}G"] = "no" if found is None else f"`{found.words}` ({needed(found.plan)})"
    return row


def setting(size: str, stage: str, *, lora: bool) -> StageConfig:
    """The recipe of a row: bfloat16, ZeRO 2, checkpointed activations, rows of 4,096 tokens."""
    path = f"EleutherAI/polyglot-ko-{size}"
    model: dict[str, Any] = {"path": path, "dtype": "bfloat16", "gradient_checkpointing": True}
    if lora:
        model["lora"] = {"rank": 16, "alpha": 32}
    content: dict[str, Any] = {"model": model, "deepspeed": {"zero_stage": 2}, "train": {"micro_tokens": 4096}}
    if stage == "ppo":
        content |= {"actor": {"path": path}, "reward": {"path": path}}
        content["sampling"] = {"max_prompt_tokens": 256, "max_new_tokens": 256, "batch_size": 16}
    return STAGES[stage].config.model_validate(content)
