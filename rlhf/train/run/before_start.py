"""What is wrong with a run, or with a chain of runs, before anything expensive: no torch, no model, no launcher.

`checked` is the first thing that the script of a stage does. `rlhf train`, `rlhf ready` and `rlhf quickstart` make the
same checks, the last two for stages that start from runs which do not exist yet.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.arguments import parse_stage_arguments
from rlhf.config.load import load_config
from rlhf.config.model_paths import how_to_make, is_hub_id
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, RewardConfig, StageConfig
from rlhf.config.sections import SourceSection
from rlhf.config.stages import STAGES
from rlhf.data.embedded import data_path
from rlhf.data.readers import locate
from rlhf.data.records import Demonstration
from rlhf.data.sources import DataSource, require_usable
from rlhf.errors import ArtifactError, ConfigError, ModelError, RlhfError, require_packages
from rlhf.plan.steps import count_rows, kind_of_rows, planned_steps, require_warmup_fits
from rlhf.train.run.readiness import parents_of
from rlhf.train.run.trackers import require_trackers

MOST_COUNTED = 64 << 20  # bytes of training files; above it only the run itself counts the rows
OTHERS_WAIT_S = 10.0


def checked(stage: str, argv: Sequence[str]) -> None:
    """Ends the process, with the reason, for a command line, a configuration or a data file that cannot be used.

    Under a launcher every rank checks and rank 0 reports. The launcher ends all ranks as soon as one has ended, so the
    others wait until rank 0 has reported.
    """
    try:
        given = parse_stage_arguments(stage, argv)
        config = load_config(STAGES[stage].config, given.config_path, given.overrides)
        for problem in start_problems(config):
            raise problem
    except RlhfError as error:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
        else:
            time.sleep(OTHERS_WAIT_S)
        raise SystemExit(1) from None


def start_problems(config: StageConfig) -> Iterator[RlhfError]:
    """Every reason why a run would end before its first step: data, models that are not there, warm-up."""
    from huggingface_hub import constants

    yield from package_problems(config)
    yield from data_problems(config)
    yield from missing_models(config, offline=constants.HF_HUB_OFFLINE)
    yield from reference_problems(config)
    yield from schedule_problems(config)


def reference_problems(config: StageConfig) -> Iterator[ArtifactError]:
    """A run named for its reference log-probabilities that has none. Whether they are of the same model and rows is
    known once both are read."""
    given = config.dpo.reference_from if isinstance(config, DpoConfig) else ""
    if given and not RunFolder(given).reference_logprobs.is_file():
        yield ArtifactError(
            f"{given} holds no reference log-probabilities",
            where="dpo.reference_from",
            expected="a run of dpo on the same model and rows",
            fix="name such a run, or leave dpo.reference_from empty",
        )


def package_problems(config: StageConfig) -> Iterator[RlhfError]:
    """Packages that are not installed: of a service of log.to, of an optimizer."""
    try:
        require_trackers(config.log)
    except RlhfError as error:
        yield error
    for key, (fields, _) in config.learners.items():
        if fields.optimizer == "adamw8bit":
            try:
                where, otherwise = f"{key}.optimizer", f"set {key}.optimizer=adamw"
                require_packages("bitsandbytes", extra="gpu", needed_by="adamw8bit", where=where, otherwise=otherwise)
            except RlhfError as error:
                yield error


def data_problems(config: StageConfig, made: Collection[str] = ()) -> Iterator[RlhfError]:
    """Every data file that is missing, is empty or holds no row that the stage can use, up to its first usable row.

    `made` are files that do not exist yet, which are passed over.
    """
    if not config.data.train:
        yield ConfigError("no data is named", where="data.train", fix="set data.train=FILE")
    for key, source, kind in _sources(config):
        if source.path in made:
            continue
        path = data_path(source.address)
        try:
            wanted = DataSource(path, source.format, ignore=tuple(source.ignore))
            require_usable(wanted, kind, on_bad_row=config.data.on_bad_row)
        except RlhfError as error:
            where = f"{key}  {error.where}" if error.where else key
            yield type(error)(error.problem, where=where, expected=error.expected, fix=error.fix)


def _sources(config: StageConfig) -> Iterator[tuple[str, SourceSection, Any]]:
    """(key, source, record that the stage makes of its rows) of all data of a run."""
    for key, sources in (("data.train", config.data.train), ("data.eval", config.data.eval)):
        for source in sources:
            yield key, source, kind_of_rows(config, source)
    if isinstance(config, RewardConfig):
        for source in config.data.demonstrations:
            yield "data.demonstrations", source, Demonstration
    if isinstance(config, PpoConfig):
        for source in config.data.ptx:
            yield "data.ptx", source, Demonstration


def schedule_problems(config: StageConfig) -> Iterator[ConfigError]:
    """A warm-up that is too long for the rows of the training files; nothing for files too large to be counted here."""
    try:
        sizes = [_size(data_path(source.address)) for source in config.data.train]
        if not sizes or sum(sizes) > MOST_COUNTED:
            return
        rows, _ = count_rows(config)
    except RlhfError:
        return  # `data_problems` names it
    try:
        require_warmup_fits(config.train, planned_steps(config, rows))
    except ConfigError as error:
        yield error


def _size(path: str) -> int:
    found = locate(path).path
    files = [found] if found.is_file() else [file for file in found.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def missing_models(
    config: StageConfig, *, earlier: Collection[str] = (), offline: bool, stages: Mapping[str, str] | None = None
) -> Iterator[ModelError]:
    """Models that are neither a folder, nor in the hub cache, nor to be had from the hub.

    Args:
        config: of the run.
        earlier: run folders of stages that come first, whose models need not exist yet.
        offline: whether the hub may not be asked.
        stages: run folders that other configurations name, for the error.
    """
    before = {Path(folder) for folder in earlier}
    for key, path in parents_of(config).items():
        folder = Path(path)
        if folder.is_dir() or before & {folder, *folder.parents}:
            continue
        if path.rstrip("/") in (stages or {}):
            fix = f"finish the stage whose run.dir is {path} first"
            yield ModelError(f"{path} does not exist", where=key, fix=fix)
        elif folder.name == "model" or not is_hub_id(path):
            yield ModelError(
                f"no such folder: {path}",
                where=key,
                fix=how_to_make(path, "correct the path, or train that stage first"),
            )
        elif offline and not _in_cache(path):
            said = f"{path} is no folder, and the hub cache does not hold it while HF_HUB_OFFLINE is set"
            yield ModelError(said, where=key, fix=f"HF_HUB_OFFLINE=0 hf download {path}, where the hub can be reached")


def _in_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def chain_problems(
    configs: Mapping[str, StageConfig], *, earlier: Collection[str] | None = (), made: Collection[str] = ()
) -> list[ConfigError]:
    """Every reason why a chain of stages would end before its last: data, paths and warm-up of all of them.

    Args:
        configs: the stages in their order, by name.
        earlier: run folders that are made before the first of them; None: models are not looked for.
        made: data files that are written before the stage that reads them, and are not looked for.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    problems: list[ConfigError] = []
    before = list(earlier or ())
    for stage, config in configs.items():
        found = [*package_problems(config), *data_problems(config, made), *schedule_problems(config)]
        found += missing_models(config, earlier=before, offline=offline) if earlier is not None else []
        problems += [_of_stage(stage, problem) for problem in found]
        before.append(config.run.dir)
    return problems


def _of_stage(stage: str, problem: RlhfError) -> ConfigError:
    where = f"stage {stage}  {problem.where}".rstrip()
    return ConfigError(problem.problem, where=where, expected=problem.expected, fix=problem.fix)
