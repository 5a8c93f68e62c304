"""Files and jobs of one service: what its HTTP routes work on, and what `rlhf serve` starts and stops."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.config import Inputs, job_config
from rlhf.serve.jobs.file_store import FileStore, problems
from rlhf.serve.jobs.launch import Launcher
from rlhf.serve.jobs.request import STAGE_OF_METHOD, JobRequest
from rlhf.serve.jobs.runner import AddModel, JobRunner
from rlhf.serve.jobs.store import Job, JobStore, StoredFile, new_id

MAX_WAITING = 100  # jobs of one owner that have not ended


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What the operator gives: `rlhf serve --jobs-dir ... --job-config ... --base NAME=PATH`.

    configs: the configuration each stage's jobs start from; None for the stage's defaults.
    bases: the models people may fine-tune, by name.
    max_file_bytes: of one upload.
    """

    folder: Path
    configs: Mapping[str, Path | None]
    bases: Mapping[str, Path]
    launcher: Launcher
    parallel: int = 1
    max_file_bytes: int = 512 << 20


class FineTuningService:
    """Keeps files and jobs, and runs the jobs.

    Args:
        add_model: `add_model(id, path)` puts a finished model into service; called again for each at a start.
    """

    def __init__(self, settings: JobSettings, add_model: AddModel) -> None:
        folder = settings.folder.resolve()
        self.settings = settings
        self.store = JobStore(folder / "jobs.sqlite")
        self.files = FileStore(folder / "files", self.store)
        self.runner = JobRunner(
            folder / "jobs", self.store, self.files, settings.launcher, add_model, parallel=settings.parallel
        )

    def start(self) -> None:
        """Goes on with every job; raises ArtifactError when another service has the folder."""
        self.runner.start()

    def stop(self) -> None:
        """Stops watching; runs go on, and the next start finds them."""
        self.runner.stop()
        self.store.close()

    def create(self, request: JobRequest, *, owner: str, prefix: str = "ftjob") -> Job:
        """Queues a job.

        Raises: ApiError for what cannot be done, before anything is kept.
        """
        method, wanted, reward_name = request.settings()
        stage = STAGE_OF_METHOD[method]
        if stage not in self.settings.configs:
            known = ", ".join(name for name, each in STAGE_OF_METHOD.items() if each in self.settings.configs)
            raise ApiError(400, f"This service has no {method} jobs, only: {known}.", param="method.type")
        waiting = [job for job in self.store.jobs(owner) if job.status in ("queued", "running")]
        if len(waiting) >= MAX_WAITING:
            raise ApiError(429, f"{len(waiting)} of your jobs have not ended.", type="requests", retry_after_s=60)
        training = self._usable_file(request.training_file, stage, owner, "training_file")
        validation = None
        if request.validation_file is not None:
            validation = self._usable_file(request.validation_file, stage, owner, "validation_file")
        identifier = new_id(prefix)
        inputs = Inputs(
            run=self.runner.folder / identifier / "run",
            base=self._model(request.model, owner, "model", ("sft", "ppo")),
            training=self.files.path(training),
            validation=None if validation is None else self.files.path(validation),
            reward=self._model(reward_name, owner, "method", ("reward",)) if stage == "ppo" else None,
        )
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        config, hyperparameters = job_config(stage, self.settings.configs[stage], inputs, wanted, seed=seed)
        asked = {
            "method": method,
            "hyperparameters": hyperparameters,
            "reward_model": reward_name,
            "suffix": request.suffix,
            "seed": config.run.seed,
            "metadata": request.metadata,
        }
        now = int(time.time())
        job = Job(
            identifier, owner, now, now, "queued", stage, request.model, training.id, request.validation_file, asked
        )
        self.runner.prepare(identifier, config)
        messages = (f"Created fine-tuning job: {identifier}", "Files validated, the job is in the queue")
        self.store.add_job(job, messages)
        self.runner.wake()
        return job

    def _usable_file(self, identifier: str, stage: str, owner: str, param: str) -> StoredFile:
        """A file whose every row the stage can train on."""
        file = self.store.file(identifier, owner)
        if file is None or file.purpose != "fine-tune":
            raise ApiError(
                400, f"No such file with purpose fine-tune: {identifier}", param=param, code="file_not_found"
            )
        if file.status == "uploaded":
            raise ApiError(409, f"{identifier} is still being checked. Try again soon.", param=param, retry_after_s=5)
        if file.status == "error":
            lines = "\n".join(problems(file))
            raise ApiError(400, f"{identifier} cannot be trained on:\n{lines}", param=param, code="invalid_file")
        usable = file.report["usable_for"]
        if stage not in usable:
            message = f"{identifier} is for {', '.join(usable)}; this job needs rows for {stage}."
            raise ApiError(400, message, param=param, code="invalid_file")
        return file

    def _model(self, name: str, owner: str, param: str, stages: Sequence[str]) -> Path:
        """Where a base, or a model one of the owner's jobs made, lies."""
        job = self.store.job_of_model(name, owner)
        if job is not None and job.stage in stages:
            return self.runner.model_of(job)
        if name in self.settings.bases:
            return self.settings.bases[name]
        known = ", ".join(self.settings.bases) or "none"
        message = f"The model {name!r} cannot be used here. Bases: {known}; or a model of one of your jobs."
        raise ApiError(400, message, param=param, code="model_not_found")
