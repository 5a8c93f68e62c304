"""Each proof passes on a CPU where its kernel runs there, and fails when a fault is planted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import varlen

import rlhf.doctor.proofs_head
import rlhf.doctor.proofs_optimizer
import rlhf.doctor.proofs_quantization
import rlhf.doctor.proofs_ranks
import rlhf.models.head
from rlhf.doctor.checks import Check
from rlhf.doctor.comparison import attempted, compared
from rlhf.doctor.proofs import FastPaths, all_proofs, stage_proofs
from rlhf.doctor.proofs_attention import HeadShape, attention_proof
from rlhf.doctor.proofs_head import head_proof
from rlhf.doctor.proofs_optimizer import optimizer_proof
from rlhf.doctor.proofs_quantization import quantization_proof
from rlhf.doctor.proofs_ranks import reduction_proof
from rlhf.engine.op_builds import guard_op_builds
from rlhf.engine.ranks import Ranks
from rlhf.ops.losses import CrossEntropy, cross_entropy
from tests.support.tables import ONE_RANK
from tests.support.varlen_kernel import varlen_by_definition

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GROUPED = HeadShape(4, 2, 16)


def assert_failed(check: Check, key: str) -> None:
    assert check.state == "failed"
    assert key in check.fix
    assert "tolerance" in check.detail


def test_what_is_compared_has_its_tolerance_and_its_place() -> None:
    # 0.5 of at most 4 is an eighth; the other pair differs by 1 of 100
    pairs = {"a": (torch.tensor([1.0, 4.5]), torch.tensor([1.0, 4.0])), "b": (torch.tensor(99.0), torch.tensor(100.0))}
    failed = compared("x", pairs, torch.bfloat16, fix="turn it")
    said = "a, b: differ by at most 1.2e-01 of the largest value (a), tolerance 3e-02; cpu, bfloat16"
    assert failed == Check("x", "failed", said, "turn it")
    passed = compared("x", pairs, torch.bfloat16, fix="turn it", tolerance=0.125)
    assert (passed.state, passed.fix) == ("passed", "")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_disagrees(bad: float) -> None:
    pairs = {"a": (torch.tensor([1.0, bad]), torch.tensor([1.0, 1.0]))}
    assert compared("x", pairs, torch.float32, fix="turn it").state == "failed"


def test_a_kernel_that_cannot_run_is_a_failed_check() -> None:
    def prove() -> Check:
        raise RuntimeError("CUDA error: no kernel image\nmore")

    check = attempted("x", prove, fix="turn it")
    assert check == Check("x", "failed", "RuntimeError: CUDA error: no kernel image", "turn it")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [GROUPED, HeadShape(2, 2, 64)])
def test_varlen_agrees_with_sdpa(dtype: torch.dtype, shape: HeadShape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", varlen_by_definition)
    check = attention_proof(CPU, dtype, shape)
    assert check.state == "passed", check.detail
    for what in ("plain forward", "plain dq", "plain dk", "plain dv", "trees forward", "trees dk"):
        assert what in check.detail


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_kernel_off_by_one_column_is_found(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", partial(varlen_by_definition, shift=shift))
    assert_failed(attention_proof(CPU, torch.bfloat16, GROUPED), "model.attention=sdpa")


def test_a_kernel_wrong_in_its_backward_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_of_value(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> Tensor:
        return varlen_by_definition(q, k, v / 2 + v.detach() / 2, *rest, **options)

    monkeypatch.setattr(varlen, "varlen_attn", half_of_value)
    check = attention_proof(CPU, torch.bfloat16, GROUPED)
    assert_failed(check, "model.attention=sdpa")
    assert "dv)" in check.detail


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_chunked_head_agrees_with_all_logits(dtype: torch.dtype) -> None:
    check = head_proof(CPU, dtype, "chunked")
    assert check.state == "passed", check.detail


def scaled(compute: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """The head's operation on logits that are scaled by `factor`."""
    return lambda hidden, weight, bias, *rest, **options: compute(
        hidden * factor, weight, bias * factor, *rest, **options
    )


@pytest.mark.parametrize("operation", ["linear_cross_entropy", "linear_logprobs"])
def test_a_head_with_a_wrong_scale_is_found(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = rlhf.doctor.proofs_head
    monkeypatch.setattr(place, operation, scaled(getattr(place, operation), 1.1))
    assert_failed(head_proof(CPU, torch.bfloat16, "chunked"), "model.head=whole")


def stand_in_for_liger(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, weights: Tensor, total: Tensor, *, factor: float = 1.0
) -> CrossEntropy:
    """Liger's loss; its kernel needs a GPU."""
    return cross_entropy(torch.nn.functional.linear(hidden, weight, bias) * factor, labels, weights, total)


@pytest.mark.parametrize(("factor", "state"), [(1.0, "passed"), (1.1, "failed")])
def test_the_liger_head_is_asked_as_a_model_asks_it(factor: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlhf.models.head, "_liger_loss", partial(stand_in_for_liger, factor=factor))
    check = head_proof(CPU, torch.float32, "liger")
    assert (check.name, check.state) == ("liger head", state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_4_bit_weights_agree_with_what_they_stand_for(dtype: torch.dtype) -> None:
    check = quantization_proof(CPU, dtype)
    assert check.state == "passed", check.detail


def test_an_altered_4_bit_weight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make = rlhf.doctor.proofs_quantization.quantized_linear

    def altered(weight: Tensor, device: torch.device) -> Any:
        layer = make(weight, device)
        layer.weight.data[5] ^= 0x88  # the other half of nf4 for two weights
        return layer

    monkeypatch.setattr(rlhf.doctor.proofs_quantization, "quantized_linear", altered)
    check = quantization_proof(CPU, torch.float32)
    assert (check.state, check.fix) == ("failed", "set model.quantize=none")


def test_a_wrong_4_bit_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make = rlhf.doctor.proofs_quantization.quantized_linear

    def altered(weight: Tensor, device: torch.device) -> Any:
        layer = make(weight, device)
        layer.register_forward_hook(lambda _module, _given, output: output * 1.1)
        return layer

    monkeypatch.setattr(rlhf.doctor.proofs_quantization, "quantized_linear", altered)
    assert_failed(quantization_proof(CPU, torch.bfloat16), "model.quantize=none")


@pytest.fixture(scope="module")
def cpu_adam_can_be_built() -> None:
    """The extension cache of this project, and this environment's ninja on the path."""
    guard_op_builds()


@pytest.mark.usefixtures("cpu_adam_can_be_built")
def test_cpu_adam_agrees_with_torch() -> None:
    check = optimizer_proof()
    assert check.state == "passed", check.detail


@pytest.mark.parametrize("wrong", [{"beta1": 0.81}, {"beta2": 0.94}, {"lr": 0.0101}])
@pytest.mark.usefixtures("cpu_adam_can_be_built")
def test_an_optimizer_with_another_constant_is_found(wrong: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    make = rlhf.doctor.proofs_optimizer.optimizer_of
    monkeypatch.setattr(
        rlhf.doctor.proofs_optimizer,
        "optimizer_of",
        lambda groups, fields, **options: make(groups, fields.model_copy(update=wrong), **options),
    )
    assert_failed(optimizer_proof(), "deepspeed.offload_optimizer=false")


def total_of(*lost: int) -> Callable[[Tensor, Ranks], Tensor]:
    """The sum over four ranks, of which `lost` do not take part."""

    def summed(given: Tensor, ranks: Ranks) -> Tensor:
        each = torch.ones(4, 4) + torch.eye(4)  # row r is what rank r gives
        assert given.tolist() == each[ranks.rank].tolist()
        return each[[rank for rank in range(4) if rank not in lost]].sum(0).to(given.dtype)

    return summed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("lost", "state"), [((), "passed"), ((2,), "failed"), ((0, 1), "failed")])
def test_an_all_reduce_that_loses_a_rank_is_found(
    lost: tuple[int, ...], state: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rlhf.doctor.proofs_ranks, "summed", total_of(*lost))
    for rank in range(4):
        check = reduction_proof(Ranks(rank, rank, 4, CPU), dtype)
        assert check.state == state
        assert bool(check.fix) == (state == "failed")


def test_one_rank_has_no_all_reduce_to_prove() -> None:
    assert reduction_proof(ONE_RANK, torch.float32).state == "skipped"


@pytest.mark.usefixtures("cpu_adam_can_be_built")
def test_all_proofs_on_a_cpu() -> None:
    """What needs a GPU is skipped with the reason; the rest passes."""
    found = {check.name: check for check in all_proofs(CPU, torch.float32, ONE_RANK)}
    skipped = {name for name, check in found.items() if check.state == "skipped"}
    assert {name for name, check in found.items() if check.state == "passed"} == {
        "chunked head",
        "4-bit weights",
        "DeepSpeedCPUAdam",
    }
    assert skipped == found.keys() - {"chunked head", "4-bit weights", "DeepSpeedCPUAdam"}
    assert {"liger head", "all-reduce", "varlen attention, 8/2 heads of 128"} <= skipped
    assert all(found[name].detail for name in skipped)


def test_a_stage_proves_what_it_takes_and_leaves_the_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", varlen_by_definition)
    before = torch.random.get_rng_state()
    taken = FastPaths(attention=(GROUPED,), head="chunked", quantized=True)
    checks = stage_proofs(ONE_RANK, torch.bfloat16, taken)
    assert [check.name for check in checks] == ["varlen attention, 4/2 heads of 16", "chunked head", "4-bit weights"]
    assert {check.state for check in checks} == {"passed"}
    assert torch.equal(torch.random.get_rng_state(), before)
    assert stage_proofs(ONE_RANK, torch.bfloat16, FastPaths()) == []
