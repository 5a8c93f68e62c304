"""Options of stages 1 and 2 as a whole run has them: an early end, an average of weights, a unit for scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf.data.encode import Encoder
from rlhf.data.packing import pack_sequences
from rlhf.data.records import Demonstration
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import load_tokenizer
from rlhf.models.loading import load_scalar_model
from tests.integration.conftest import read_json, read_lines, read_run
from tests.integration.starts import Starter


def test_a_run_that_gets_no_better_ends_early_and_alike_when_it_is_resumed(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    """Of 7 steps, evaluated after 2, 4 and 6; the rate is far too high, so that each evaluation is worse."""
    words = ["--config", configs["sft"], "train.lr=1.0", "eval.patience=1", "train.ema_decay=0.5"]
    words += ["train.neftune_alpha=1"]
    text = starter.run("sft", *words, f"run.dir={tmp_path}/whole")
    assert "trained 4 steps and stopped early; best held-out loss" in text
    whole = read_run(tmp_path / "whole")
    losses = {line["step"]: line["eval/loss"] for line in whole.metrics if "eval/loss" in line}
    assert list(losses) == [2, 4]
    assert losses[4] > losses[2]
    assert whole.samples[-1]["step"] == 4
    assert (tmp_path / "whole" / "checkpoints" / "step-000004").is_dir()
    parts = [*words, f"run.dir={tmp_path}/parts"]
    starter.run("sft", *parts, "run.max_steps=2")
    assert "resumed" in starter.run("sft", *parts, "--resume", "auto")
    found = read_run(tmp_path / "parts")
    assert found.metrics == whole.metrics
    assert all(torch.equal(found.weights[name], weight) for name, weight in whole.weights.items())
    again = starter.run("sft", *parts, "--resume", "auto")
    assert "trained 4 steps and stopped early" in again
    assert read_run(tmp_path / "parts").metrics == whole.metrics


def test_an_average_is_exported_and_evaluated(starter: Starter, configs: dict[str, Path], tmp_path: Path) -> None:
    """Steps are the same with and without one; what is measured and exported is not."""
    words = ["--config", configs["sft"], "eval.every_steps=7", "checkpoint.every_steps=7"]
    for name, more in (("plain", []), ("averaged", ["train.ema_decay=0.9"])):
        starter.run("sft", *words, *more, f"run.dir={tmp_path / name}")
    plain, averaged = read_run(tmp_path / "plain"), read_run(tmp_path / "averaged")
    assert [line["loss"] for line in averaged.metrics] == [line["loss"] for line in plain.metrics]
    assert averaged.metrics[-1]["eval/loss"] != plain.metrics[-1]["eval/loss"]
    assert all(not torch.equal(averaged.weights[name], weight) for name, weight in plain.weights.items())


def test_scores_of_demonstrations_get_mean_0_and_deviation_1(
    starter: Starter, configs: dict[str, Path], korean: Path, tiny_neox: Path, tmp_path: Path
) -> None:
    words = ["--config", configs["reward"], f"run.dir={tmp_path}/run", f"model.path={tiny_neox}"]
    starter.run("reward", *words, "train.normalise=mean_and_deviation", "run.max_steps=2")
    folder = tmp_path / "run" / "model"
    records = read_records(DataSource(str(korean / "sft_dev.jsonl")), Demonstration).records
    model, encoder = load_scalar_model(str(folder)).eval(), Encoder(load_tokenizer(str(folder)), 128)
    rows = [pack_sequences([item]) for item in encoder.demonstrations(records)]
    with torch.no_grad():
        ends = [torch.tensor([row.num_tokens - 1]) for row in rows]
        scores = [
            float(model(row.input_ids, row.position_ids, row.segments, end))
            for row, end in zip(rows, ends, strict=True)
        ]
    assert np.mean(scores) == pytest.approx(0, abs=1e-4)
    assert np.std(scores) == pytest.approx(1, abs=1e-4)
    card = read_json(folder / "report_card.json")
    assert card["deviation_before_scale"] > 0
    assert card["mean_before_shift"] != 0


def test_margins_need_scores(starter: Starter, configs: dict[str, Path], tiny_neox: Path, tmp_path: Path) -> None:
    words = ["--config", configs["reward"], f"run.dir={tmp_path}/run", f"model.path={tiny_neox}", "train.margin=scores"]
    assert "none of 28 training rankings has scores" in starter.run("reward", *words, status=1)
    assert read_json(tmp_path / "run" / "state.json")["status"] == "failed"


def test_a_reward_model_that_gets_no_better_ends_early(
    starter: Starter, configs: dict[str, Path], tiny_neox: Path, tmp_path: Path
) -> None:
    """At a rate near 0 no evaluation is better than the first."""
    words = ["--config", configs["reward"], f"run.dir={tmp_path}/run", f"model.path={tiny_neox}", "train.lr=1e-12"]
    text = starter.run("reward", *words, "eval.every_steps=1", "eval.patience=2")
    assert "stopped early: 2 evaluations without a better accuracy" in text
    assert [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3]
