"""The DeepSpeed configuration made from our schema: a pure function, testable without DeepSpeed."""

from __future__ import annotations

from typing import Any

from rlhf.config.sections import DeepSpeedSection

REDUCE_BUCKET = 500_000_000  # DeepSpeed's default, in numbers


def zero_config(
    section: DeepSpeedSection, *, dtype: str, max_grad_norm: float, on_gpu: bool, trained: int | None = None
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`.

    Accumulation is ours (`managed_gradient_accumulation` off): a loss is divided by the global token count before
    backward, which needs `overlap_comm` off except at ZeRO 2. `gradient_clipping` is always written, since
    DeepSpeed clips at 1.0 when it is not; at ZeRO 0 in float32, where DeepSpeed reports no norm, we clip ourselves.

    A GPU allocates the buckets that gradients are exchanged in whole, so they hold no more than the `trained`
    parameters, if these are known: by default 1 GB each in half precision, also for an adapter.
    """
    plain = section.zero_stage == 0 and dtype == "float32"
    zero: dict[str, Any] = {
        "stage": section.zero_stage,
        "overlap_comm": section.zero_stage == 2 and on_gpu,
        "contiguous_gradients": True,
    }
    if section.zero_stage and trained is not None:
        zero["reduce_bucket_size"] = min(REDUCE_BUCKET, trained)
    if section.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if section.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = False
        if section.offload_parameters:
            zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0 if plain else max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16", "initial_scale_power": 12},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    return merged(config, section.overrides)


def needs_allreduce(section: DeepSpeedSection, *, dtype: str, world_size: int) -> bool:
    """Whether gradients must be exchanged: DeepSpeed would copy all of them back and forth for one rank too."""
    return world_size > 1 or section.zero_stage > 0 or dtype != "float32"


def merged(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`config` with `overrides` merged into it, mapping by mapping."""
    result = dict(config)
    for key, value in overrides.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result
