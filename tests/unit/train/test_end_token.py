"""A base that never learnt the token that ends an answer is found by the rows of its head."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf.artifacts.checkpoint import CheckpointStore
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.schema import StageConfig
from rlhf.config.sections import LoraSection
from rlhf.config.stages import STAGES
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedCausalLM, load_causal_lm
from rlhf.train import end_token, opening
from rlhf.train.end_token import ALIKE, MANY, end_token_line, never_learnt, tokens_alike
from rlhf.train.run.run import Run
from tests.support.tables import ONE_RANK


def test_rows_that_point_one_way_are_counted_whatever_their_length() -> None:
    """Of six rows two point the way of row 1 within a cosine of .95 (1 / 1.0512 = .951; 1 / 1.0607 is not)."""
    rows = torch.tensor([[3.0, 0.0], [1.0, 0.0], [1.0, 0.324], [1.0, 0.354], [0.0, 1.0], [-2.0, 0.0]])
    assert tokens_alike(rows, 1) == 2
    assert tokens_alike(rows.bfloat16(), 4) == 0


@pytest.mark.parametrize("chunk", [1, 7, 50, 99, 100, 101, 1 << 14])
def test_chunks_of_any_size_count_as_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 rows 31 point one way, 4 against it, 4 nowhere, all spread; by the cosine of each pair, one by one."""
    rows = torch.randn(100, 16, generator=torch.Generator().manual_seed(3))
    rows[::4] = rows[99] * torch.linspace(0.1, 9, 25)[:, None] + 0.02 * rows[::4]
    rows[1:100:20] = rows[99] + 0.02 * rows[1:100:20]
    rows[2:100:32] = 0
    rows[3:100:30] = -rows[99]
    monkeypatch.setattr(end_token, "ROWS", chunk)
    for token in (0, 1, 5, 50, 99):
        cosines = [float(nn.functional.cosine_similarity(rows[token], row, dim=0)) for row in rows]
        assert not [cosine for cosine in cosines if abs(cosine - ALIKE) < 1e-3]  # none that rounding could move
        assert tokens_alike(rows, token) == sum(cosine > ALIKE for cosine in cosines) - 1
    assert [tokens_alike(rows, token) for token in (5, 99)] == [0, 30]


def test_a_vocabulary_of_several_chunks() -> None:
    """Rows 0, 20,000 and 40,000 lie in the first chunk, the second and the third, which is not full."""
    rows = torch.eye(2)[torch.ones(40_001, dtype=torch.int64)]
    rows[[0, 20_000, 40_000]] = torch.tensor([2.0, 0.0])
    assert (tokens_alike(rows, 0), tokens_alike(rows, 40_000), tokens_alike(rows, 1)) == (2, 2, 39_997)


@pytest.mark.parametrize(
    ("others", "found"), [(MANY - 1, ""), (MANY, "nearly the same row of the head as 8 other tokens")]
)
def test_a_few_tokens_alike_are_no_sign(others: int, found: str) -> None:
    rows = torch.eye(20)
    rows[: others + 1] = rows[0].clone()
    assert never_learnt(rows, others) == found


@pytest.mark.parametrize("zeros", [[3], [3, 4], list(range(12))])
def test_a_row_of_zeros_was_never_trained(zeros: Sequence[int]) -> None:
    """However few there are; beside them a trained row is like none of them."""
    rows = torch.eye(20)
    rows[zeros] = 0.0
    assert tokens_alike(rows, 3) == 0
    assert never_learnt(rows, 3) == "a row of zeros in the head"
    assert (tokens_alike(rows, 15), never_learnt(rows, 15)) == (0, "")


@pytest.fixture
def model(tiny_neox: Path) -> PackedCausalLM:
    return load_causal_lm(str(tiny_neox))


def untrain(model: PackedCausalLM, tokens: range) -> None:
    """Rows as one mean and a little noise, as unused tokens of a large vocabulary have them."""
    rows = model.model.get_output_embeddings().weight
    with torch.no_grad():
        rows[tokens.start : tokens.stop] = torch.randn(rows.shape[1]) + 0.05 * torch.randn(len(tokens), rows.shape[1])


def test_a_frozen_head_that_cannot_tell_the_end_is_named(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    add_lora(model, LoraSection(rank=2))
    line = end_token_line(model, 25, "<end_of_turn>")
    assert line.startswith("warning: <end_of_turn> (token 25), which ends an answer, has nearly the same row")
    assert "as 19 other tokens" in line
    assert end_token_line(model, 3, "<eos>") == ""  # a token that the base knows


def test_a_frozen_row_of_zeros_is_named(model: PackedCausalLM) -> None:
    add_lora(model, LoraSection(rank=2))
    assert end_token_line(model, 25, "<end_of_turn>") == ""
    with torch.no_grad():
        model.model.get_output_embeddings().weight[25] = 0
    line = end_token_line(model, 25, "<end_of_turn>")
    assert "<end_of_turn> (token 25), which ends an answer, has a row of zeros in the head: this base never" in line


def test_a_head_of_packed_numbers_is_not_read(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    add_lora(model, LoraSection(rank=2))
    head = model.model.get_output_embeddings()
    head.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    assert end_token_line(model, 25, "<end_of_turn>") == ""


def test_a_head_that_is_trained_can_learn_it(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    assert end_token_line(model, 25, "<end_of_turn>") == ""


def test_a_head_with_an_adapter_of_its_own_can_learn_it(model: PackedCausalLM) -> None:
    untrain(model, range(20, 40))
    add_lora(model, LoraSection(rank=2, targets=["lm_head"]))
    assert end_token_line(model, 25, "<end_of_turn>") == ""


class NoEngine:
    """In the place of the engine, which needs a process group."""

    def __init__(self, *_given: object, **_named: object) -> None: ...


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize(
    ("untrained", "words", "warned"),
    [
        (True, ["model.lora.rank=2"], True),
        (False, ["model.lora.rank=2"], False),
        (True, [], False),  # all weights are trained
    ],
    ids=["untrained", "trained", "whole"],
)
def test_a_stage_says_it_once_at_its_start(
    stage: str,
    untrained: bool,
    words: list[str],
    warned: bool,
    tiny_neox: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """EOS of the tokenizer is token 0; the base of the case has one row for it and 19 others."""
    base = load_causal_lm(str(tiny_neox))
    if untrained:
        untrain(base, range(20))
    shutil.copytree(tiny_neox, tmp_path / "base")
    base.model.save_pretrained(tmp_path / "base")
    given = [f"model.path={tmp_path}/base", "data.template=kullm", f"run.dir={tmp_path}/run", "data.train=x.jsonl"]
    config: StageConfig = load_config(STAGES[stage].config, None, [*given, *words])
    folder = RunFolder(tmp_path / "run")
    store = CheckpointStore(folder.checkpoints, ONE_RANK, keep_last=1)
    run = Run(stage, config, ONE_RANK, folder, store, None, dry_run=False)
    monkeypatch.setattr(opening, "TrainedModel", NoEngine)
    opening.trained_language_model(run, *opening.opened_model(run))
    lines = [line for line in capsys.readouterr().err.splitlines() if "which ends an answer" in line]
    assert len(lines) == warned
    if warned:
        assert "(token 0), which ends an answer, has nearly the same row of the head as 19 other tokens" in lines[0]
