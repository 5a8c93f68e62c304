"""Decode steps of fixed shape, as a GPU runs them: the same answers as on a CPU, from tensors at fixed addresses alone.

A CUDA graph replays kernels on addresses, and nothing that Python computed while it was recorded changes again. Here
make_fx takes its place: it records the operations of a step on its real tensors, Python's numbers among them as
constants, and replays them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rlhf.data.transfer import moved
from rlhf.errors import ConfigError, RolloutError
from rlhf.models.loading import load_causal_lm
from rlhf.rollout.base import uniform_draws
from rlhf.rollout.capacity import CacheBuckets
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.graphs import graphs_in_words
from rlhf.rollout.sampling import decoding_groups, draw_tokens
from rlhf.rollout.sequences import ActiveSequence, Decoding
from rlhf.rollout.step import StepOutput

FIXED, EXACT = CacheBuckets(fixed=True), CacheBuckets(fixed=False)
RNG = np.random.default_rng(8)
PROMPTS = [RNG.integers(2, 400, length).astype(np.int32) for length in (7, 1, 15, 4, 9, 7, 3, 12, 5, 2, 6)]
LIMITS = (12, 3, 20, 1, 9, 30, 5, 8, 14, 2, 25)


@pytest.fixture(scope="module", params=["tiny_neox", "tiny_llama"])
def model(request: pytest.FixtureRequest) -> Any:
    return load_causal_lm(str(request.getfixturevalue(request.param))).model.eval()


class Recorder:
    """Stands in for CUDA's capture. Counts captures and replays."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, run: Callable[[], StepOutput], changed: Sequence[Tensor]) -> Callable[[], StepOutput]:
        self.captures += 1
        saved = [tensor.clone() for tensor in changed]

        def outputs() -> tuple[Tensor, Tensor]:
            output = run()
            return output.drawn, output.logits

        recorded = make_fx(outputs)()
        for tensor, value in zip(changed, saved, strict=True):  # make_fx computes while it records
            tensor.copy_(value)

        def replay() -> StepOutput:
            self.replays += 1
            return StepOutput(*recorded())

        return replay


def decoded(model: Any, decodings: Sequence[Decoding] = (Decoding(),), **options: Any) -> list[ActiveSequence]:
    """Eleven answers of different lengths through four slots."""
    answers = [
        ActiveSequence(prompt, uniform_draws((7, row), limit), decodings[row % len(decodings)])
        for row, (prompt, limit) in enumerate(zip(PROMPTS, LIMITS, strict=True))
    ]
    decoder = Decoder(model, 0, num_slots=options.pop("num_slots", 4), **options)
    decoder.admit(answers)
    while decoder.busy:
        decoder.step()
    return answers


def require_same(found: Sequence[ActiveSequence], expected: Sequence[ActiveSequence]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)  # sums of other lengths round otherwise
    assert [each.finished for each in found] == [each.finished for each in expected]


MIXED = (Decoding(), Decoding(0.0), Decoding(0.7, 5), Decoding(1.3, 0, 0.9))


@pytest.mark.parametrize("num_slots", [1, 3, 4, 16])
@pytest.mark.parametrize("decodings", [(Decoding(),), MIXED], ids=["alike", "mixed"])
def test_fixed_shapes_give_the_same_answers(model: Any, num_slots: int, decodings: tuple[Decoding, ...]) -> None:
    found = decoded(model, decodings, num_slots=num_slots, buckets=FIXED)
    require_same(found, decoded(model, decodings, num_slots=num_slots, buckets=EXACT))


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(0.0), Decoding(0.7, 5, 0.9)])
def test_replayed_steps_give_the_same_answers(model: Any, decoding: Decoding) -> None:
    """One capture serves all steps of a shape: slots leave and enter, and the memory is arranged anew in its place."""
    recorder = Recorder()
    found = decoded(model, (decoding,), buckets=FIXED, capture=recorder)
    require_same(found, decoded(model, (decoding,), buckets=EXACT))
    assert recorder.captures <= 3  # four slots, then two, then one
    assert recorder.replays > 20


def test_columns_that_are_used_up_are_captured_anew(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.rollout.capacity.COLUMN_BUCKET", 8)
    recorder = Recorder()
    found = decoded(model, buckets=FIXED, capture=recorder)
    require_same(found, decoded(model, buckets=EXACT))
    assert recorder.captures > 3


def test_several_settings_at_once_are_not_captured(model: Any) -> None:
    recorder = Recorder()
    decoder = Decoder(model, -1, num_slots=4, buckets=FIXED, capture=recorder)
    decoder.admit(ActiveSequence(PROMPTS[row], uniform_draws((1, row), 9), MIXED[row]) for row in range(4))
    while decoder.busy:
        decoder.step()
    assert recorder.captures == 0


def test_graphs_that_are_off_are_not_captured(model: Any) -> None:
    recorder = Recorder()
    decoded(model, buckets=FIXED, capture=recorder, graphs="off")
    assert recorder.captures == 0


def fails(run: Callable[[], StepOutput], changed: Sequence[Tensor]) -> Callable[[], StepOutput]:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_a_failed_capture_is_said_once_and_steps_run_eagerly(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = decoded(model, buckets=FIXED, capture=fails)
    require_same(found, decoded(model, buckets=EXACT))
    assert capsys.readouterr().err == (
        "note: decoding without CUDA graphs, as a step cannot be captured: "
        "operation not permitted when stream is capturing\n"
    )


def test_a_failed_capture_is_an_error_where_graphs_are_on(model: Any) -> None:
    with pytest.raises(RolloutError, match="cannot be captured") as caught:
        decoded(model, buckets=FIXED, capture=fails, graphs="on")
    assert caught.value.where == "rollout.cuda_graphs"


def test_graphs_need_a_gpu() -> None:
    cpu, card = torch.device("cpu"), torch.device("cuda")
    assert graphs_in_words("auto", cpu) == "eager (no CUDA graphs on cpu)"
    assert graphs_in_words("auto", card) == graphs_in_words("on", card) == "captured in CUDA graphs"
    assert graphs_in_words("off", card) == "eager (rollout.cuda_graphs=off)"
    with pytest.raises(ConfigError, match="need a GPU"):
        graphs_in_words("on", cpu)


def test_the_host_reads_once_a_step_and_sends_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides what arranges the slots; the pretend GPU counts the same on a device."""
    sent: list[int] = []

    def counted(tensor: Tensor, device: torch.device) -> Tensor:
        sent.append(len(tensor))
        return moved(tensor, device)

    for place in ("cache", "step", "sampling"):
        monkeypatch.setattr(f"rlhf.rollout.{place}.moved", counted)
    decoder = Decoder(model, -1, num_slots=3, buckets=FIXED)
    decoder.admit(ActiveSequence(PROMPTS[row], uniform_draws((1, row), 12)) for row in range(3))
    decoder.step()
    before = len(sent)
    while decoder.num_running:
        decoder.step()
    assert before > 0
    assert len(sent) == before


def test_an_ended_answer_stays_within_the_models_positions(model: Any) -> None:
    """It keeps its slot while most others go on; a learned position table would be left otherwise."""
    decoder = Decoder(model, -1, num_slots=8, buckets=FIXED)
    limits = (2, *[30] * 7)
    decoder.admit(ActiveSequence(PROMPTS[0], uniform_draws((1, row), limit)) for row, limit in enumerate(limits))
    decoder.step()
    while decoder.num_running:
        decoder.step()
        assert decoder._step is not None
        assert len(decoder._slots) == 8  # the ended one is still there
        assert int(decoder._step.state.positions[0]) <= len(PROMPTS[0]) + 2 - 1
    assert decoder._step is not None
    assert decoder._step.cache.length > len(PROMPTS[0]) + 20


def test_rows_of_several_settings_are_drawn_as_each_would_be_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    logits, uniform = torch.randn(9, 50, generator=generator), torch.rand(9, generator=generator).double()
    decodings = [MIXED[row % len(MIXED)] for row in (2, 0, 3, 3, 1, 0, 2, 1, 0)]
    cpu = torch.device("cpu")
    found = draw_tokens(logits, uniform, decoding_groups(decodings, cpu))
    for row, decoding in enumerate(decodings):
        own = slice(row, row + 1)
        alone = draw_tokens(logits[own], uniform[own], decoding_groups([decoding], cpu))
        assert torch.equal(found[:, own], alone)


class Spoilt:
    """A model whose decode steps give NaN for the slot `row`."""

    def __init__(self, model: Any, row: int) -> None:
        self._model, self._row = model, row

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        if "segments" not in inputs:
            output.logits[self._row] = torch.nan
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def test_logits_that_are_not_finite_are_an_error_unless_their_answer_has_ended(model: Any) -> None:
    def run(row: int) -> None:
        decoder = Decoder(Spoilt(model, row), -1, num_slots=8)
        decoder.admit(ActiveSequence(PROMPTS[0], uniform_draws((1, each), 1 if each == 3 else 6)) for each in range(8))
        while decoder.busy:
            decoder.step()

    run(3)
    with pytest.raises(ValueError, match="logits row 4 has NaN"):
        run(4)
