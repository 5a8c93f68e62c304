"""The start of a reward model's score head: held-out accuracy with a quiet start and with the usual one, over seeds.

python benchmarks/score_head.py --model MODEL --train PAIRS --eval PAIRS --out score-head.json

Each start and seed trains for one epoch on the first `--rows` rankings, in one process with AdamW; the seed draws the
head and the order of the rows. `--start 1` is a deviation of 1 / sqrt(d + 1), `--start 0.001` that of stage 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.config.schema import RewardConfig
from rlhf.config.sections import LoraSection
from rlhf.data.encode import EncodedRanking, Encoder
from rlhf.data.packing import PackedRow
from rlhf.data.records import Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import StepOutcome
from rlhf.engine.ranks import Ranks
from rlhf.models.adapters import add_lora
from rlhf.models.loading import load_scalar_model
from rlhf.models.scalar_head import QUIET, initialise_head
from rlhf.train.reward import held_out_accuracy, reward_step
from rlhf.train.schedules import schedule_of


class PlainTrained:
    """As much of the engine's trained model as a step of stage 2 uses, on one CPU."""

    ranks = Ranks(0, 0, 1, torch.device("cpu"))

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, betas=(0.9, 0.95), weight_decay=0.01)

    def forward(self, row: PackedRow) -> Tensor:
        scores: Tensor = self.model(row.input_ids, row.position_ids, row.segments, row.positions)
        return scores

    @torch.no_grad()
    def infer(self, row: PackedRow) -> Tensor:
        return self.forward(row)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> StepOutcome:
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, 1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutcome(norm, True)


def built(path: str, tokenizer: ChatTokenizer, start: float, seed: int, rank: int | None) -> PlainTrained:
    wrapped = load_scalar_model(path, new_head=True)
    initialise_head(wrapped.model.score, seed=seed)
    with torch.no_grad():
        wrapped.model.score.weight.mul_(start / QUIET)
    wrapped.model.config.pad_token_id = tokenizer.pad_id
    if rank is not None:
        torch.manual_seed(seed)
        add_lora(wrapped, LoraSection(rank=rank))
    return PlainTrained(wrapped)


def run(
    trained: PlainTrained, rows: Sequence[EncodedRanking], held_out: Sequence[EncodedRanking], lr: float, seed: int
) -> dict[str, Any]:
    config = RewardConfig.model_validate({"train": {"lr": lr, "batch_size": 8, "micro_tokens": 4096}})
    batches = np.array_split(np.random.default_rng(seed).permutation(len(rows)), len(rows) // 8)
    schedule, began = schedule_of(config.train, len(batches)), time.monotonic()
    steps: list[dict[str, float]] = []
    for number, batch in enumerate(batches, 1):
        chosen = [rows[index] for index in batch]
        steps.append(reward_step(trained, chosen, config, schedule, number))  # type: ignore[arg-type]
    losses = [step["loss"] for step in steps]
    return {
        "first_loss": losses[0],
        "mean_of_first_8": statistics.fmean(losses[:8]),
        "mean_loss": statistics.fmean(losses),
        "first_grad_norm": steps[0]["grad_norm"],
        "seconds_per_step": (time.monotonic() - began) / len(batches),
        "accuracy": held_out_accuracy(trained, held_out, config)["accuracy"] if held_out else None,  # type: ignore[arg-type]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--template", help="preset or Jinja file (default: the tokenizer's own)")
    parser.add_argument("--train", required=True, help="rankings to train on")
    parser.add_argument("--eval", required=True, help="held-out rankings")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rows", type=int, default=480, help="rankings to train on (default: 480)")
    parser.add_argument("--eval-rows", type=int, default=400, help="held-out rankings (default: 400)")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a prompt with an answer (default: 256)")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--lora-rank", type=int, help="train adapters instead of whole weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--start", type=float, nargs="+", default=[1.0, QUIET])
    given = parser.parse_args()
    tokenizer = load_tokenizer(given.model, given.template)
    encoder, found = Encoder(tokenizer, given.max_length), []
    rows, held_out = (
        encoder.rankings(read_records(DataSource(path, limit=limit), Ranking).records) if limit else []
        for path, limit in ((given.train, given.rows), (given.eval, given.eval_rows))
    )
    for seed in given.seeds:
        for start in given.start:
            trained = built(given.model, tokenizer, start, seed, given.lora_rank)
            found.append({"start": start, "seed": seed, **run(trained, rows, held_out, given.lr, seed)})
            print(json.dumps(found[-1]), flush=True)
    given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
