"""The head that takes its own loss: equal to the model's logits, refused where it cannot be."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from rlhf.errors import ConfigError, ModelError
from rlhf.models.head import LanguageModelHead, LogprobRequest, LossRequest, install_head
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.ops.segments import Segments

IDS = torch.tensor([[5, 9, 11, 7, 300, 21, 40, 8, 3]])
PLACES = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
SEGMENTS = Segments.of_lengths([4, 5])
POSITIONS, LABELS = torch.tensor([1, 2, 5, 7]), torch.tensor([11, 7, 40, 3])
WEIGHTS = torch.tensor([1.0, 0.5, 1.0, 2.0])


def _loss(model: PackedCausalLM) -> torch.Tensor:
    return model(IDS, PLACES, SEGMENTS, POSITIONS, LossRequest(LABELS, WEIGHTS, torch.tensor(4.5)))


@pytest.mark.parametrize("fixture", ["tiny_neox", "tiny_llama"])
def test_chunked_equals_whole_in_loss_and_gradient(fixture: str, request: pytest.FixtureRequest):
    folder: Path = request.getfixturevalue(fixture)
    chunked, whole = load_causal_lm(str(folder)), load_causal_lm(str(folder))
    install_head(chunked.model, "chunked")
    install_head(whole.model, "whole")
    assert isinstance(chunked.model.get_output_embeddings(), LanguageModelHead)
    assert type(whole.model.get_output_embeddings()) is nn.Linear
    for model in (chunked, whole):
        _loss(model).loss.backward()
    torch.testing.assert_close(_loss(chunked).loss, _loss(whole).loss, rtol=1e-5, atol=1e-6)
    for (name, mine), theirs in zip(chunked.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_head_still_gives_logits_and_saves_under_its_own_name(tiny_neox: Path, tmp_path: Path):
    model = load_causal_lm(str(tiny_neox))
    before = model(IDS, PLACES, SEGMENTS, POSITIONS)
    install_head(model.model, "chunked")
    torch.testing.assert_close(model(IDS, PLACES, SEGMENTS, POSITIONS), before, rtol=0, atol=0)
    model.model.save_pretrained(tmp_path)
    again = load_causal_lm(str(tmp_path))
    torch.testing.assert_close(again(IDS, PLACES, SEGMENTS, POSITIONS), before, rtol=0, atol=0)


def test_a_head_with_an_adapter_is_refused(tiny_neox: Path):
    model = load_causal_lm(str(tiny_neox))
    model.model.set_output_embeddings(nn.Sequential(model.model.get_output_embeddings()))
    with pytest.raises(ModelError, match=r"model\.head=whole"):
        install_head(model.model, "chunked")


def test_liger_is_never_replaced_in_silence(tiny_neox: Path):
    model = load_causal_lm(str(tiny_neox))
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    with pytest.raises(ConfigError, match="liger"):
        install_head(model.model, "liger")


def test_liger_is_asked_for_sums_in_float32(monkeypatch: pytest.MonkeyPatch):
    """A stand-in with Liger's arguments: its kernel needs a GPU. By default Liger sums in the weight's dtype."""
    asked = []

    def stand_in(input, weight, target, bias=None, *, reduction="mean", accum_dtype=None):
        asked.append(accum_dtype)
        return nn.functional.cross_entropy(nn.functional.linear(input, weight, bias), target, reduction=reduction)

    functional = ModuleType("liger_kernel.transformers.functional")
    functional.liger_fused_linear_cross_entropy = stand_in
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, functional.__name__, functional)
    head, hidden = LanguageModelHead(8, 50), torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    head.kind = "liger"
    loss = head(hidden, LossRequest(LABELS, WEIGHTS, torch.tensor(4.5))).loss
    nll = nn.functional.cross_entropy(nn.functional.linear(hidden, head.weight, head.bias), LABELS, reduction="none")
    torch.testing.assert_close(loss, (nll * WEIGHTS).sum() / 4.5)
    assert asked == [torch.float32] * 3  # weights 0.5, 1 and 2


@pytest.mark.parametrize("fixture", ["tiny_neox", "tiny_llama"])
def test_logprobs_and_entropy_are_those_of_the_logits(fixture: str, request: pytest.FixtureRequest):
    folder: Path = request.getfixturevalue(fixture)
    chunked, whole = load_causal_lm(str(folder)), load_causal_lm(str(folder))
    install_head(chunked.model, "chunked")
    logs = (whole(IDS, PLACES, SEGMENTS, POSITIONS) / 0.7).log_softmax(-1)
    expected, spread = logs.gather(1, LABELS[:, None])[:, 0], -(logs.exp() * logs).sum(-1)
    for model in (chunked, whole):
        out = model(IDS, PLACES, SEGMENTS, POSITIONS, LogprobRequest(LABELS, 0.7, with_entropy=True))
        torch.testing.assert_close(out.logprobs, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.entropy, spread, rtol=1e-5, atol=1e-5)
        (out.logprobs.sum() + out.entropy.sum()).backward()
    mine, theirs = ([p.grad for p in model.parameters()] for model in (chunked, whole))
    for each, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [3, 40])  # few rows and many take different products
def test_logits_without_a_graph_have_the_bias(rows: int, bias: bool):
    head, hidden = LanguageModelHead(4, 7, bias=bias), torch.randn(2, rows, 4)
    expected = torch.einsum("brd,vd->brv", hidden, head.weight)
    if bias:
        expected = expected + head.bias
    with torch.no_grad():
        torch.testing.assert_close(head(hidden), expected)
