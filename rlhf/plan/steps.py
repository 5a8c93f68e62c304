"""How many optimizer steps a run takes, from the rows of its files, and whether its warm-up fits. Reads files only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, RewardConfig, StageConfig
from rlhf.config.sections import AnswerSource, SourceSection, TrainSection
from rlhf.data.embedded import data_path
from rlhf.data.loader import RowStream
from rlhf.data.readers import locate
from rlhf.data.records import Demonstration, MarkedAnswers, Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ConfigError, DataError

ASSUMED_ROWS = 1000
MAX_WARMUP_SHARE = 0.3


def planned_steps(config: StageConfig, sizes: Sequence[int]) -> int:
    """Optimizer steps (stage 3: iterations) of all epochs over training files of these sizes."""
    weights = [source.weight for source in config.data.train]
    per_step = config.ppo.num_prompts if isinstance(config, PpoConfig) else config.train.batch_size
    known = tuple(weights) if len(weights) == len(sizes) else (1.0,) * len(sizes)
    return RowStream(tuple(sizes), known, 0, per_step, config.train.epochs).num_steps


def warmup_steps(train: TrainSection, total: int) -> int:
    """Steps of warm-up as configured; a ratio is kept within 30 % of the run, beyond which training refuses steps."""
    if train.warmup_steps is not None:
        return train.warmup_steps
    return min(round(train.warmup_ratio * total), int(MAX_WARMUP_SHARE * total))


def require_warmup_fits(train: TrainSection, total_steps: int) -> int:
    """The steps of warm-up of a run of `total_steps`. Raises ConfigError when they are more than 30 % of the run."""
    warmup = warmup_steps(train, total_steps)
    if warmup > MAX_WARMUP_SHARE * total_steps:
        raise ConfigError(
            f"a warm-up of {warmup} steps in a run of {total_steps} optimizer steps leaves too few at the full rate",
            where=f"train.warmup_steps = {warmup}",
            expected=f"at most 30 % of the run: {int(MAX_WARMUP_SHARE * total_steps)} steps",
            fix="lower train.warmup_steps or train.batch_size, or raise train.epochs",
        )
    return warmup


def count_rows(config: StageConfig) -> tuple[tuple[int, ...], bool]:
    """Usable rows of each training file; (1000,) and True if one does not exist."""
    found = []
    for source in config.data.train:
        path = data_path(source.address)
        try:
            locate(path)
        except DataError:
            return (ASSUMED_ROWS,), True
        found.append(_rows(config, path, source))
    return (tuple(found), False) if found else ((ASSUMED_ROWS,), True)


def kind_of_rows(config: StageConfig, source: SourceSection) -> Any:
    """The record that a stage makes of the rows of a training or held-out file."""
    if isinstance(config, DpoConfig):
        return MarkedAnswers if config.dpo.loss == "kto" else Ranking
    if isinstance(config, RewardConfig) or (isinstance(source, AnswerSource) and source.answers == "all"):
        return Ranking
    return Prompt if isinstance(config, PpoConfig) else Demonstration


def _rows(config: StageConfig, path: str, source: SourceSection) -> int:
    every_answer = isinstance(source, AnswerSource) and source.answers == "all"
    wanted = DataSource(path, source.format, limit=source.limit, ignore=tuple(source.ignore))
    read = read_records(wanted, kind_of_rows(config, source), on_bad_row="skip").records
    return sum(ranking.num_answers for ranking in read) if every_answer else len(read)
