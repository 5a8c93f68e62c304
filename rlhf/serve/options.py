"""What a service is asked to be: the flags of `rlhf serve`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlhf.config.flag_values import DTYPE, Dtype
from rlhf.config.flags import flag
from rlhf.config.rollout import RolloutSection
from rlhf.web.guard import LOOPBACK

if TYPE_CHECKING:
    from rlhf.serve.jobs.service import FineTuningService

FOLDER = Path("runs/serve")
KEYS_FILE = FOLDER / "keys.sqlite"


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """How models are loaded and how many answers they write at once.

    rollout: what decodes: this process, or an engine of vLLM for each model, whose logs go into `engine_logs`.
    """

    num_slots: int | None = flag(
        None,
        "answers of one model decoded together (default: what half the free memory holds, at most 32)",
        name="--max-batch",
        least=1,
    )
    queue: int = flag(128, "answers that may wait beside those; further requests get status 429", least=0)
    dtype: Dtype = flag("auto", DTYPE)
    template: str | None = flag(
        None, "chat template, preset or Jinja file, for a tokenizer without one", metavar="NAME"
    )
    rollout: RolloutSection = field(default_factory=RolloutSection)
    engine_logs: Path = FOLDER / "engines"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command was asked for.

    models: name -> path.
    keys: file of API keys; `open_access` decides who may use the service.
    jobs: makes the fine-tuning jobs, given what puts a finished model into service; None for a service without them.
    votes: where the chat page's votes are kept; None for a page without.
    """

    models: dict[str, str]
    serving: ServingSettings
    host: str = flag("127.0.0.1", "address to listen on", metavar="HOST")
    port: int = flag(8000, "port; 0 takes a free one", least=0)
    keys: Path = flag(
        KEYS_FILE,
        "API keys made by `rlhf keys add`; without any, only this machine may use the service",
        metavar="FILE",
        shown=str(KEYS_FILE),
    )
    timeout_s: float = flag(600.0, "seconds a request may take", name="--timeout", metavar="S", least=0)
    chat_tokens: int | None = flag(
        None,
        "longest chat answer in tokens where a request does not say (default: all the model has room for)",
        name="--max-tokens",
        least=1,
    )
    drain_s: float = flag(60.0, "seconds for running requests after SIGTERM", name="--drain", metavar="S", least=0)
    max_body_bytes: int = flag(4 << 20, "largest request", name="--max-body", metavar="BYTES")
    jobs: Callable[[Callable[[str, Path], object]], FineTuningService | None] = lambda add_model: None
    votes: Path | None = flag(
        None,
        "where the chat page's votes go, as rankings for stage 2; thumbs go into FILE.ratings.jsonl beside it "
        "(default: votes.jsonl in --jobs-dir; without that the page has no vote buttons)",
        metavar="FILE.jsonl",
    )


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Uploads and fine-tuning jobs of a service."""

    jobs_dir: Path | None = flag(
        None,
        f"where files, jobs and votes are kept (default: {FOLDER} where only this machine may use the service; "
        "otherwise there are no jobs)",
        metavar="DIR",
    )
    no_jobs: bool = flag(False, "no files, no jobs, and no votes without --votes")
    configs: tuple[str, ...] = flag(
        (),
        "configuration that jobs start from: sft.yaml, reward.yaml, ppo.yaml, STAGE=FILE, or a folder of them; may be "
        "repeated (default: the stages' own defaults)",
        name="--job-config",
        metavar="FILE",
    )
    bases: tuple[str, ...] = flag(
        (),
        "model jobs may start from; may be repeated (default: the models that are served)",
        name="--base",
        metavar="NAME=PATH",
    )
    launcher: Literal["local", "slurm"] = flag(
        "local", "deepspeed on this machine, or sbatch scripts/slurm/train.sbatch", name="--job-launcher"
    )
    launcher_words: list[str] = flag(
        [],
        "further words for deepspeed or sbatch, such as '--num_gpus 2' or '--nodes=2 --gpus-per-node=8'",
        name="--job-launcher-args",
        metavar="WORDS",
        parse=shlex.split,
    )
    parallel: int = flag(1, "jobs that run at the same time", name="--jobs-at-once", least=1)
    max_file_mb: int = flag(512, "largest upload", metavar="MB", least=1)

    def folder(self, host: str) -> Path | None:
        """Where files, jobs and votes are kept; None where there are none."""
        if self.no_jobs:
            return None
        return self.jobs_dir or (FOLDER if host in LOOPBACK else None)
