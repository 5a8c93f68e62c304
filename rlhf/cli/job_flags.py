"""Flags of `rlhf serve` for files, fine-tuning jobs and API keys."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.keys import DEFAULT_FILE

if TYPE_CHECKING:
    from rlhf.serve.jobs.service import FineTuningService

DEFAULT_FOLDER = "runs/serve"


def add_access_flags(command: argparse.ArgumentParser) -> None:
    """Who may come in."""
    command.add_argument(
        "--keys",
        default=DEFAULT_FILE,
        metavar="FILE",
        help="API keys made by `rlhf keys add`; without any, this machine alone may come in (default: %(default)s)",
    )


def add_job_flags(command: argparse.ArgumentParser) -> None:
    """Files and jobs."""
    group = command.add_argument_group("fine-tuning jobs", "uploads and training runs through the same service")
    group.add_argument(
        "--jobs-dir",
        metavar="DIR",
        help=f"where files, jobs and votes are kept (default: {DEFAULT_FOLDER} where only this machine may come in; "
        "elsewhere there are no jobs)",
    )
    group.add_argument("--no-jobs", action="store_true", help="no files, no jobs, and no votes without --votes")
    group.add_argument(
        "--job-config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration that jobs start from: sft.yaml, reward.yaml, ppo.yaml, STAGE=FILE, or a folder of them; "
        "again for more (default: the stages' own defaults)",
    )
    group.add_argument(
        "--base",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="model jobs may start from; again for more (default: the models that are served)",
    )
    group.add_argument(
        "--job-launcher",
        choices=("local", "slurm"),
        default="local",
        help="deepspeed on this machine, or sbatch scripts/slurm/train.sbatch (default: %(default)s)",
    )
    group.add_argument(
        "--job-launcher-args",
        type=shlex.split,
        default=[],
        metavar="WORDS",
        help="more words for deepspeed or sbatch, such as '--num_gpus 2' or '--nodes=2 --gpus-per-node=8'",
    )
    group.add_argument(
        "--jobs-at-once", type=int, default=1, metavar="N", help="jobs that run at one time (default: %(default)s)"
    )
    group.add_argument(
        "--max-file-mb", type=int, default=512, metavar="MB", help="largest upload (default: %(default)s)"
    )


def kept_folder(arguments: argparse.Namespace) -> Path | None:
    """Where files, jobs and votes are kept; None where there are none."""
    from rlhf.web.guard import LOOPBACK

    if arguments.no_jobs:
        return None
    if arguments.jobs_dir:
        return Path(arguments.jobs_dir)
    return Path(DEFAULT_FOLDER) if arguments.host in LOOPBACK else None


def fine_tuning_of(
    arguments: argparse.Namespace, served: Mapping[str, str], add_model: Callable[[str, Path], object]
) -> FineTuningService | None:
    """What the flags describe, not started yet; None where no jobs are wanted.

    Args:
        served: models by name, which jobs may start from where no --base says otherwise.

    Raises: ConfigError for flags that cannot be used.
    """
    from rlhf.errors import ConfigError
    from rlhf.serve.jobs.config import JobSettings, read_bases, read_job_configs
    from rlhf.serve.jobs.launch import LocalLauncher, SlurmLauncher
    from rlhf.serve.jobs.service import FineTuningService

    folder = kept_folder(arguments)
    if folder is None:
        for flag, given in (("--job-config", arguments.job_config), ("--base", arguments.base)):
            if given:
                raise ConfigError(f"{flag} is for jobs, and there are none", fix="add --jobs-dir DIR")
        return None
    if arguments.jobs_at_once < 1 or arguments.max_file_mb < 1:
        raise ConfigError("--jobs-at-once and --max-file-mb are at least 1")
    bases = arguments.base or [f"{name}={path}" for name, path in served.items() if Path(path).is_dir()]
    launcher = SlurmLauncher if arguments.job_launcher == "slurm" else LocalLauncher
    settings = JobSettings(
        folder=folder,
        configs=read_job_configs(arguments.job_config),
        bases=read_bases(bases),
        launcher=launcher(arguments.job_launcher_args),
        parallel=arguments.jobs_at_once,
        max_file_bytes=arguments.max_file_mb << 20,
    )
    return FineTuningService(settings, add_model)
