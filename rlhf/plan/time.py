"""Optimizer steps, tokens, floating-point operations and hours of a run, at a stated utilisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.schema import PpoConfig, RewardConfig, StageConfig
from rlhf.config.sections import AnswerSource, SourceSection, TrainSection
from rlhf.data.embedded import data_path
from rlhf.data.loader import RowStream
from rlhf.data.records import Demonstration, Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.plan.batches import longest_item
from rlhf.plan.roles import Shapes
from rlhf.rollout.capacity import CPU_SLOTS

ASSUMED_ROWS = 1000
A100_FLOPS, A100_BANDWIDTH = 312e12, 1.6e12  # bfloat16 operations and bytes per second of one A100
MAX_WARMUP_SHARE = 0.3


@dataclass(frozen=True)
class RunEstimate:
    """Size and time of a run. rows: of data.train; assumed: whether they stand in for files that do not exist.

    tokens are an upper bound (every row as long as it may be); flops over all ranks; hours on all ranks together.
    """

    rows: int
    assumed: bool
    steps: int
    updates: int
    warmup: int
    tokens: float
    flops: float
    hours: float
    utilisation: float

    @property
    def warmup_share(self) -> float:
        return self.warmup / max(1, self.steps)


def estimate_run(
    config: StageConfig, shapes: Shapes, world_size: int, *, utilisation: float, flops_per_second: float
) -> RunEstimate:
    """Steps, tokens and hours; `flops_per_second` is one rank's peak."""
    sizes, assumed = count_rows(config)
    weights = tuple(source.weight for source in config.data.train) if not assumed else (1.0,)
    per_step = config.ppo.num_prompts if isinstance(config, PpoConfig) else config.train.batch_size
    stream = RowStream(sizes, weights, 0, per_step, config.train.epochs)
    steps = stream.num_steps
    limit = config.run.max_steps
    done = steps if limit is None else min(steps, limit)
    items = done * per_step
    updates, tokens, flops, decode_s = done, float(items * longest_item(config)), 0.0, 0.0
    if isinstance(config, PpoConfig):
        samples = done * config.ppo.rollout_size
        updates = done * config.ppo.epochs * (config.ppo.rollout_size // config.train.batch_size)
        tokens = float(samples * longest_item(config))
        flops, decode_s = _ppo_flops(config, shapes, tokens), _decode_seconds(config, shapes, done, world_size)
    else:
        shape = shapes["model"]
        length = config.data.max_length
        flops = tokens * (_training(config) * shape.parameters + 6.0 * shape.layers * shape.width * length)
    hours = (flops / (flops_per_second * utilisation * world_size) + decode_s) / 3600
    return RunEstimate(
        sum(sizes), assumed, steps, updates, warmup_steps(config.train, steps), tokens, flops, hours, utilisation
    )


def warmup_steps(train: TrainSection, total: int) -> int:
    """Steps of warm-up as configured; a ratio is kept within 30 % of the run, beyond which training refuses steps."""
    if train.warmup_steps is not None:
        return train.warmup_steps
    return min(round(train.warmup_ratio * total), int(MAX_WARMUP_SHARE * total))


def _training(config: StageConfig) -> float:
    """Operations per parameter and token: forward 2, gradient of activations 2, of weights 2, recomputation 2."""
    of_weights = 0.0 if config.model.lora is not None else 2.0
    return 4.0 + of_weights + (2.0 if config.model.gradient_checkpointing else 0.0)


def _ppo_flops(config: PpoConfig, shapes: Shapes, tokens: float) -> float:
    """Sampling, one forward pass per role, and `ppo.epochs` training passes per trained role."""
    read = sum(2.0 * shape.parameters for shape in shapes.values())
    trained = sum(_training(config) * shapes[role].parameters for role in ("actor", "critic") if role in shapes)
    return tokens * (read + config.ppo.epochs * trained)


def _decode_seconds(config: PpoConfig, shapes: Shapes, iterations: int, world_size: int) -> float:
    """A decode step reads all weights once for all slots: it is bound by memory bandwidth."""
    waves = math.ceil(config.ppo.rollout_size / world_size / (config.sampling.batch_size or CPU_SLOTS))
    weights = shapes["actor"].parameters * 2.0 * (0.25 if config.model.quantize == "4bit" else 1.0)
    return iterations * waves * config.sampling.max_new_tokens * weights / A100_BANDWIDTH / 0.5


def count_rows(config: StageConfig) -> tuple[tuple[int, ...], bool]:
    """Usable rows of each training file; (1000,) and True if one does not exist."""
    found = []
    for source in config.data.train:
        path = data_path(source.path)
        if not Path(path.partition("#")[0]).exists():
            return (ASSUMED_ROWS,), True
        found.append(_rows(config, path, source))
    return (tuple(found), False) if found else ((ASSUMED_ROWS,), True)


def _rows(config: StageConfig, path: str, source: SourceSection) -> int:
    every_answer = isinstance(source, AnswerSource) and source.answers == "all"
    kind: Any = Prompt if isinstance(config, PpoConfig) else Demonstration
    if every_answer or isinstance(config, RewardConfig):
        kind = Ranking
    read = read_records(DataSource(path, source.format, limit=source.limit), kind, on_bad_row="skip").records
    return sum(ranking.num_answers for ranking in read) if every_answer else len(read)
