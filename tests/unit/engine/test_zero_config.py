"""Our schema as DeepSpeed's configuration."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from rlhf.config.sections import DeepSpeedSection
from rlhf.engine.zero_config import merged, needs_allreduce, zero_config


def config(stage: int = 0, *, dtype: str = "float32", on_gpu: bool = False, norm: float = 0.7, **section):
    section = DeepSpeedSection(zero_stage=stage, **section)
    return zero_config(section, dtype=dtype, max_grad_norm=norm, on_gpu=on_gpu)


@pytest.mark.parametrize(
    ("stage", "dtype", "on_gpu"),
    itertools.product((0, 1, 2, 3), ("float32", "bfloat16", "float16"), (False, True)),
)
def test_clipping_is_always_written(stage, dtype, on_gpu):
    # DeepSpeed clips at 1.0 without the key; ZeRO 0 in float32 reports no norm, so there we clip ourselves
    expected = 0.0 if (stage, dtype) == (0, "float32") else 0.7
    assert config(stage, dtype=dtype, on_gpu=on_gpu)["gradient_clipping"] == expected


@pytest.mark.parametrize(
    ("stage", "on_gpu", "expected"),
    [(0, True, False), (1, True, False), (2, True, True), (3, True, False), (2, False, False), (3, False, False)],
)
def test_overlap_is_off_except_at_stage_2_on_a_gpu(stage, on_gpu, expected):
    zero = config(stage, on_gpu=on_gpu)["zero_optimization"]
    assert zero["overlap_comm"] is expected
    assert zero["stage"] == stage


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_accumulation_is_ours(stage):
    made = config(stage)
    assert made["managed_gradient_accumulation"] is False
    assert made["gradient_accumulation_steps"] == made["train_micro_batch_size_per_gpu"] == 1
    assert "train_batch_size" not in made


@pytest.mark.parametrize(
    ("dtype", "bf16", "fp16"), [("float32", False, False), ("bfloat16", True, False), ("float16", False, True)]
)
def test_number_types(dtype, bf16, fp16):
    made = config(2, dtype=dtype)
    assert (made["bf16"]["enabled"], made["fp16"]["enabled"]) == (bf16, fp16)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_offload_keys(on_gpu):
    target = {"device": "cpu", "pin_memory": on_gpu}
    for stage in (1, 2, 3):
        plain = config(stage, on_gpu=on_gpu)["zero_optimization"]
        assert not {"offload_optimizer", "offload_param"} & plain.keys()
        zero = config(stage, on_gpu=on_gpu, offload_optimizer=True)["zero_optimization"]
        assert zero["offload_optimizer"] == target
        assert "offload_param" not in zero
    zero = config(3, on_gpu=on_gpu, offload_parameters=True)["zero_optimization"]
    assert zero["offload_param"] == target
    assert "offload_optimizer" not in zero


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_offload_without_its_stage_is_refused(stage):
    with pytest.raises(ValidationError, match=f"offload_parameters needs zero_stage 3, and zero_stage is {stage}"):
        DeepSpeedSection(zero_stage=stage, offload_parameters=True)
    if stage == 0:
        with pytest.raises(ValidationError, match="offload_optimizer needs zero_stage 1, 2 or 3"):
            DeepSpeedSection(zero_stage=stage, offload_optimizer=True)


@pytest.mark.parametrize(("trained", "size"), [(None, None), (50_331_648, 50_331_648), (1_331_810_304, 500_000_000)])
def test_buckets_hold_no_more_than_is_trained(trained, size):
    for stage in (1, 2, 3):
        made = zero_config(
            DeepSpeedSection(zero_stage=stage), dtype="bfloat16", max_grad_norm=1.0, on_gpu=True, trained=trained
        )
        assert made["zero_optimization"].get("reduce_bucket_size") == size
    plain = zero_config(DeepSpeedSection(), dtype="bfloat16", max_grad_norm=1.0, on_gpu=True, trained=7)
    assert "reduce_bucket_size" not in plain["zero_optimization"]


def test_overrides_are_laid_over_key_by_key():
    overrides = {"zero_optimization": {"reduce_bucket_size": 5, "overlap_comm": True}, "gradient_clipping": 2.0, "x": 1}
    made = config(3, overrides=overrides)
    assert made["zero_optimization"]["reduce_bucket_size"] == 5
    assert made["zero_optimization"]["overlap_comm"] is True
    assert made["zero_optimization"]["stage"] == 3  # what was not named stays
    assert (made["gradient_clipping"], made["x"]) == (2.0, 1)


def test_merged_changes_neither_argument():
    base, over = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 4}}
    assert merged(base, over) == {"a": {"b": 9, "c": 2}, "d": {"e": 4}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
    assert over == {"a": {"b": 9}, "d": {"e": 4}}
    assert merged({"a": {"b": 1}}, {"a": 5}) == {"a": 5}


def test_the_section_is_not_changed():
    section = DeepSpeedSection(zero_stage=2, overrides={"zero_optimization": {"stage": 2}})
    zero_config(section, dtype="float32", max_grad_norm=1.0, on_gpu=False)["zero_optimization"]["stage"] = 9
    assert section.overrides == {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("stage", "dtype", "world_size", "expected"),
    [
        (0, "float32", 1, False),  # nobody to exchange with
        (0, "float32", 2, True),
        (0, "bfloat16", 1, True),  # DeepSpeed's bfloat16 optimizer takes gradients over in that pass
        (2, "float32", 1, True),  # and so do its partitions
    ],
)
def test_gradients_are_exchanged_where_there_is_somebody(stage, dtype, world_size, expected):
    section = DeepSpeedSection(zero_stage=stage)
    assert needs_allreduce(section, dtype=dtype, world_size=world_size) is expected
