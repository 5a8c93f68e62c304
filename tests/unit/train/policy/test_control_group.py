"""The figures of the control group from samples."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.artifacts.files import read_json
from rlhf.config.ppo import PpoConfig
from rlhf.data.packing import PackedRow
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.train.policy import control_group
from rlhf.train.policy.control_group import _by_prompt, policy_kl
from rlhf.train.policy.roles import Roles
from tests.support.tables import EOS, ONE_RANK, ppo_config, sample


class Halves:
    """A reference that gives each token 1/2."""

    ranks = ONE_RANK

    def averaged(self) -> AbstractContextManager[None]:
        return nullcontext()

    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs:
        return TokenLogprobs(torch.full((len(row.positions),), -math.log(2)), torch.zeros(len(row.positions)))


def test_the_kl_of_an_answer_is_the_sum_over_its_tokens() -> None:
    """The policy was sure of two tokens, so log 2 each; of one token it gave a quarter, so -log 2."""
    sure = sample([2], [5, EOS], old_logprobs=np.zeros(2, np.float32))
    unsure = sample([2, 3], [EOS], old_logprobs=np.asarray([-math.log(4)], np.float32))
    roles: Any = Roles(Halves(), None, Halves(), None)  # type: ignore[arg-type]
    assert policy_kl([sure, unsure], roles, ppo_config()) == pytest.approx([2 * math.log(2), -math.log(2)])


@pytest.mark.parametrize(("recompute", "kl"), [(True, 0.0), (False, 2 * math.log(2))])
def test_in_half_precision_the_policy_reads_its_own_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recompute: bool, kl: float
) -> None:
    """The decode loop gave each of two tokens 1; the training forward pass of both models gives 1/2."""
    config = PpoConfig.model_validate(
        {
            "train": {"batch_size": 1},
            "rollout": {"recompute_logprobs": recompute},
            "control": {"samples": 1, "best_of": [2], "max_prompts": 2},
        }
    )
    drawn = [sample([2], [5, EOS], old_logprobs=np.zeros(2, np.float32))]
    monkeypatch.setattr(control_group, "draw_answers", lambda model, tokenizer, asked, *_: drawn * len(asked))
    monkeypatch.setattr(control_group, "track_report", lambda *given: None)
    run: Any = SimpleNamespace(
        config=config,
        dry_run=False,
        say=lambda said: None,
        on_main=lambda write: write(),
        folder=SimpleNamespace(path=tmp_path),
    )
    sources: Any = SimpleNamespace(scores=lambda answers: SimpleNamespace(totals=[1.0] * len(answers)))
    prompts: Any = [object(), object()]
    roles: Any = Roles(Halves(), None, Halves(), None)  # type: ignore[arg-type]
    control_group.run_control(run, roles, sources, None, prompts)  # type: ignore[arg-type]
    assert read_json(tmp_path / "control.json")["policy"]["kl"] == pytest.approx(kl)


def test_scores_are_grouped_by_prompt() -> None:
    """Two prompts answered three times, all prompts once before any is answered again."""
    assert _by_prompt([1, 10, 2, 20, 3, 30], 2).tolist() == [[1, 2, 3], [10, 20, 30]]
