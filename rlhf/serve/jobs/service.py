"""The files and jobs of one service, without HTTP: the routes call it, `rlhf serve` starts and stops it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.config import JobSettings, job_config
from rlhf.serve.jobs.file_store import FileStore, problems
from rlhf.serve.jobs.request import STAGE_OF_METHOD, JobRequest
from rlhf.serve.jobs.runner import AddModel, JobRunner
from rlhf.serve.jobs.store import ENDED, Job, JobStore, StoredFile, new_id

ANSWERING = ("sft", "ppo", "dpo")  # stages whose models give answers
MAX_WAITING = 100  # jobs of one owner that have not ended


class FineTuningService:
    """Stores files and jobs, and runs the jobs.

    Args:
        add_model: `add_model(id, path)` puts a finished model into service; it is called for each of them at a start.
    """

    def __init__(self, settings: JobSettings, add_model: AddModel) -> None:
        folder = settings.folder.resolve()
        self.settings = settings
        self.store = JobStore(folder / "jobs.sqlite")
        self.files = FileStore(folder / "files", self.store)
        self.runner = JobRunner(settings, self.store, self.files, add_model)

    def create(self, request: JobRequest, *, owner: str, prefix: str = "ftjob") -> Job:
        """Queues a job.

        Raises: ApiError for what cannot be done, before anything is stored.
        """
        method, wanted, reward_name = request.settings()
        stage = STAGE_OF_METHOD[method]
        self._check_allowed(method, owner)
        identifier = new_id(prefix)
        paths: dict[str, Any] = {
            "run.dir": str(self.runner.folder / identifier / "run"),
            "data.train": self._usable_file(request.training_file, stage, owner, "training_file"),
            "data.eval": [],
        }
        if request.validation_file is not None:
            paths["data.eval"] = self._usable_file(request.validation_file, stage, owner, "validation_file")
        paths["actor.path" if stage == "ppo" else "model.path"] = self._model(request.model, owner, "model", ANSWERING)
        if stage == "ppo":
            paths["reward.path"] = self._model(reward_name, owner, "method", ("reward",))
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        config, hyperparameters = job_config(stage, self.settings.configs[stage], paths, wanted, seed=seed)
        asked = {
            "method": method,
            "hyperparameters": hyperparameters,
            "reward_model": reward_name,
            "suffix": request.suffix,
            "seed": config.run.seed,
            "metadata": request.metadata,
        }
        now, files = int(time.time()), (request.training_file, request.validation_file)
        job = Job(identifier, owner, now, now, "queued", stage, request.model, *files, asked)
        self.runner.prepare(identifier, config)
        with self.store.change():
            self.store.add(job)
            self.store.add_event(identifier, f"Created fine-tuning job: {identifier}")
            self.store.add_event(identifier, "Files validated, the job is in the queue")
        self.runner.wake()
        return job

    def _check_allowed(self, method: str, owner: str) -> None:
        if STAGE_OF_METHOD[method] not in self.settings.configs:
            known = ", ".join(name for name, stage in STAGE_OF_METHOD.items() if stage in self.settings.configs)
            raise ApiError(400, f"This service has no {method} jobs, only: {known}.", param="method.type")
        waiting = sum(job.status not in ENDED for job in self.store.find(Job, owner=owner))
        if waiting >= MAX_WAITING:
            raise ApiError(429, f"{waiting} of your jobs have not ended.", type="requests", retry_after_s=60)

    def _usable_file(self, identifier: str, stage: str, owner: str, param: str) -> str:
        """The path of a file whose every row the stage can train on."""
        file = self.store.first(StoredFile, id=identifier, owner=owner)
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
        return str(self.files.path(file))

    def _model(self, name: str, owner: str, param: str, stages: Sequence[str]) -> str:
        """The folder of a base, or of a model that one of the owner's jobs trained."""
        job = self.store.first(Job, fine_tuned_model=name, owner=owner)
        if job is not None and job.stage in stages:
            return str(self.runner.run_of(job).model)
        if name in self.settings.bases:
            return str(self.settings.bases[name])
        known = ", ".join(self.settings.bases) or "none"
        message = f"The model {name!r} cannot be used here. Bases: {known}; or a model of one of your jobs."
        raise ApiError(400, message, param=param, code="model_not_found")
