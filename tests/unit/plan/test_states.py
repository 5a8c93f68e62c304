"""Model states against DeepSpeed's own estimators, and by hand."""

import pytest
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

from rlhf.config.sections import DeepSpeedSection, LoraSection, ModelSection
from rlhf.plan.host import offloaded_bytes, parked_bytes, pinned
from rlhf.plan.shapes import BUILT_IN, neox
from rlhf.plan.states import Placement, frozen_bytes, trained_states

SHAPE = BUILT_IN["5.8b"]
MODEL = ModelSection(dtype="bfloat16")


def states(stage, ranks, *, model=MODEL, device="gpu", shape=SHAPE, dtype="bfloat16", **zero):
    return trained_states(shape, model, DeepSpeedSection(zero_stage=stage, **zero), Placement(ranks, device, dtype))


def at_step(held):
    """Model states where they are largest: at the optimizer's step."""
    resident = held.weights + held.adapters + held.master + held.moments + held.average
    return resident + held.gradients + held.step


@pytest.mark.parametrize("ranks", [1, 2, 8, 64])
def test_zero_2_agrees_with_deepspeed(ranks):
    _, theirs = estimate_zero2_model_states_mem_needs(SHAPE.parameters, ranks, 1, cpu_offload=False)

    # 2 weights; a share of 2 gradients, 4 of them in float32 at the step, 4 masters and 8 moments
    assert at_step(states(2, ranks)) == pytest.approx(theirs, rel=1e-6)


def test_zero_2_with_offload_keeps_the_weights_as_deepspeed_says():
    theirs_cpu, theirs = estimate_zero2_model_states_mem_needs(
        SHAPE.parameters, 1, 1, cpu_offload=True, additional_buffer_factor=1.0
    )
    ours = states(2, 1, offload_optimizer=True)

    assert at_step(ours) == pytest.approx(theirs, rel=1e-6)
    # Theirs counts 16 bytes: 4 masters, 4 gradients, 8 moments. DeepSpeed 0.19 also keeps gradients and updated
    # weights in half precision. All but the moments is page-locked, in blocks of a power of two: 5.9e9 parameters take
    # 23.5e9 bytes in float32, in a block of 2 ** 35, and 11.8e9 in two bytes, in one of 2 ** 34.
    assert theirs_cpu == 16 * SHAPE.parameters
    assert ours.host == 2 * 2**35 + 2 * 2**34 + 8 * SHAPE.parameters


def test_zero_3_with_offload_by_hand():
    """2.5e9 of 10e9 numbers on each of four ranks: sub-groups of 1e9, 1e9 and 0.5e9."""
    flat = 2 * (2**32 + 2**32 + 2**31)  # 4e9, 4e9 and 2e9 bytes of masters, as many of gradients
    assert offloaded_bytes(2.5e9, 2, stage=3) == flat + 2**33 + 8 * 2.5e9  # and 5e9 of gradients in two bytes


def test_a_page_locked_block_is_a_power_of_two():
    assert [pinned(size) for size in (0, 1, 4096, 4097, 3 * 2**30)] == [0, 1, 4096, 8192, 2**32]


def test_a_parked_model_is_page_locked_weight_by_weight():
    """GPT-NeoX of width 96: in each of 2 layers 96 x 288, 96 x 96 and two of 96 x 384; two of 1000 x 96."""
    shape = neox("x", 2, 96, 4, vocabulary=1000)
    matrices = 2 * (2**16 + 2**15 + 2 * 2**17) + 2 * 2**18  # 55,296; 18,432; 73,728 twice; 192,000 bytes
    rest = 2 * (shape.parameters - 2 * (27648 + 9216 + 2 * 36864) - 2 * 96000)  # biases and norms
    assert parked_bytes(shape, 2) == matrices + pinned(rest)


@pytest.mark.parametrize("ranks", [1, 8])
def test_zero_3_is_deepspeeds_estimate_and_the_flattened_gradients(ranks):
    _, theirs, layer = estimate_zero3_model_states_mem_needs(SHAPE.parameters, 0, ranks, 1, False, False)
    ours = states(3, ranks)
    part = SHAPE.parameters / ranks

    # Theirs has 18 bytes a parameter: 2 weights + 2 gradients + 12 optimizer + 2 of a gradient in work. Ours holds
    # 16, and at the step a flat copy (2) and a float32 one (4) of one sub-group of at most 1e9 parameters. What is
    # gathered is apart: theirs is one layer, DeepSpeed's defaults keep up to 1.05e9 parameters.
    assert layer == 0
    assert at_step(ours) - 6 * min(part, 1e9) == pytest.approx(theirs - 2 * part, rel=1e-6)


def test_zero_0_by_hand():
    shape = neox("x", 2, 64, 4)
    full, half = states(0, 1, shape=shape, dtype="float32"), states(0, 1, shape=shape)

    assert at_step(full) == 16 * shape.parameters  # 4 weights, 4 gradients, 8 moments
    assert at_step(half) == 20 * shape.parameters  # 2, 2, 4 masters, 8, and 4 of float32 gradients at the step


def test_only_adapters_have_gradients_and_moments():
    model = ModelSection(dtype="bfloat16", lora=LoraSection(rank=16))
    # 28 layers x 16 x (4096 + 12288 + 2 x 4096 + 2 x 20480)
    adapters = 28 * 16 * (4096 + 12288 + 2 * 4096 + 2 * (4096 + 16384))
    found = states(2, 1, model=model)

    assert found.weights == 2 * SHAPE.parameters
    assert found.adapters == 2 * adapters
    assert found.master + found.moments == 12 * adapters
    assert found.reduction == 2 * (2 * adapters + adapters)  # two buckets for all of them, and the message itself


def test_buckets_of_a_large_model_are_deepspeeds() -> None:
    assert states(2, 1).reduction == 2 * (2 * 5e8 + 5e8)


def test_a_smaller_bucket_is_believed():
    small = states(2, 1, overrides={"zero_optimization": {"reduce_bucket_size": 1000}})
    assert small.reduction == 2 * (2 * 1000 + 1000)


def test_four_bits_leave_embeddings_alone():
    model = ModelSection(dtype="bfloat16", lora=LoraSection(), quantize="4bit")
    matrices = 28 * (3 + 1 + 4 + 4) * 4096**2
    rest = SHAPE.parameters - matrices

    assert frozen_bytes(SHAPE, model, 2) == pytest.approx(matrices * 0.5159 + rest * 2, rel=1e-4)


def moments(optimizer, stage=0, *, ranks=1, lora=None, dtype="float32"):
    """Of GPT-NeoX of width 96 with 2 layers and 1000 words."""
    model = ModelSection(dtype=dtype, lora=lora)
    section, placement = DeepSpeedSection(zero_stage=stage), Placement(ranks, "gpu", dtype)
    return trained_states(neox("x", 2, 96, 4, vocabulary=1000), model, section, placement, optimizer=optimizer)


def test_eight_bit_moments_by_hand():
    """Matrices of 2 x (96 x 288, 96 x 96, two of 96 x 384) and two of 1000 x 96: 413,184 entries; vectors: 2 layers of
    (288 + 96 + 384 + 96 biases, 4 x 96 of norms) and a norm of 2 x 96: 2,688."""
    scale = 8 / 256
    assert moments("adamw8bit").moments == (2 + scale) * 413_184 + 8 * 2_688
    assert moments("adamw8bit", 2, ranks=2).moments == (2 + scale) * (413_184 + 2_688) / 2  # flattened
    assert moments("adamw").moments == 8 * (413_184 + 2_688)


def test_small_adapters_have_moments_in_float32():
    """Rank 2: no adapter matrix has 4096 entries. 2 layers of 2 x (96 + 288)."""
    assert moments("adamw8bit", lora=LoraSection(rank=2, targets=["query_key_value"])).moments == 8 * 2 * 2 * 384


def test_adafactor_keeps_rows_and_columns_by_hand():
    layer = (96 + 288) + (96 + 96) + 2 * (96 + 384)
    found = moments("adafactor")
    assert found.moments == 4 * (2 * layer + 2 * (1000 + 96) + 2_688)
    assert found.step == 8 * 96_000  # the largest matrix, twice in float32
    adapters = moments("adafactor", lora=LoraSection(rank=2, targets=["query_key_value"]))
    assert adapters.moments == 4 * 2 * ((2 + 96) + (288 + 2))
