"""Weights partitioned by ZeRO 3: loaded, gathered for generation, edited alike on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from rlhf.config.sections import DeepSpeedSection
from rlhf.engine.zero_config import zero_config


@contextmanager
def unwrapped_zero3(engine: Any) -> Iterator[None]:
    """Whole weights without hooks. DeepSpeed's own helper has no try/finally: an error inside it would leave the
    engine without its hooks, so the error is raised again after it."""
    from deepspeed.runtime.zero import unwrap_model_for_generation

    failure: BaseException | None = None
    with unwrap_model_for_generation(engine):
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - raised again below, when the hooks are back
            failure = error
    if failure is not None:
        raise failure


@contextmanager
def loading_context(section: DeepSpeedSection, *, dtype: str, on_gpu: bool) -> Iterator[None]:
    """While active, `from_pretrained` partitions weights as they are read (ZeRO 3), so that none is ever held whole."""
    if section.zero_stage < 3:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    config = zero_config(section, dtype=dtype, max_grad_norm=1.0, on_gpu=on_gpu)
    holder = HfDeepSpeedConfig(config)
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del holder


@contextmanager
def writable(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Gathers parameters, if they are partitioned, so that they can be changed alike on every rank."""
    import deepspeed

    partitioned = any(hasattr(parameter, "ds_id") for parameter in parameters)
    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=partitioned):
        yield


@contextmanager
def whole(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Gathers parameters, if they are partitioned, so that they can be read; every rank must come here alike."""
    import deepspeed

    partitioned = any(hasattr(parameter, "ds_id") for parameter in parameters)
    with deepspeed.zero.GatheredParameters(parameters, enabled=partitioned):
        yield
