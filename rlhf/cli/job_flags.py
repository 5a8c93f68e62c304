"""Flags of `rlhf serve` for files and fine-tuning jobs, and the jobs they describe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.serve.jobs.service import FineTuningService
    from rlhf.serve.options import JobOptions


def add_job_flags(command: argparse.ArgumentParser) -> None:
    """Files and jobs."""
    from rlhf.serve.options import JobOptions

    group = command.add_argument_group("fine-tuning jobs", "uploads and training runs through the same service")
    add_flags(group, JobOptions)


def job_options_of(arguments: argparse.Namespace) -> JobOptions:
    """Raises ConfigError for a number that is too small."""
    from rlhf.serve.options import JobOptions

    return fill(JobOptions, arguments)


def fine_tuning_of(
    arguments: argparse.Namespace, served: Mapping[str, str], add_model: Callable[[str, Path], object]
) -> FineTuningService | None:
    """What the flags describe, not started yet; None where no jobs are wanted.

    Args:
        served: models by name, which jobs may start from where no --base says otherwise.

    Raises: ConfigError for flags that cannot be used.
    """
    from rlhf.errors import ConfigError
    from rlhf.serve.jobs.config import read_bases, read_job_configs
    from rlhf.serve.jobs.launch import LocalLauncher, SlurmLauncher
    from rlhf.serve.jobs.service import FineTuningService, JobSettings

    options = job_options_of(arguments)
    folder = options.folder(arguments.host)
    if folder is None:
        for flag, given in (("--job-config", options.configs), ("--base", options.bases)):
            if given:
                raise ConfigError(f"{flag} is for jobs, and there are none", fix="add --jobs-dir DIR")
        return None
    bases = options.bases or [f"{name}={path}" for name, path in served.items() if Path(path).is_dir()]
    launcher = SlurmLauncher if options.launcher == "slurm" else LocalLauncher
    settings = JobSettings(
        folder=folder,
        configs=read_job_configs(options.configs),
        bases=read_bases(bases),
        launcher=launcher(options.launcher_words),
        parallel=options.parallel,
        max_file_bytes=options.max_file_mb << 20,
    )
    return FineTuningService(settings, add_model)
