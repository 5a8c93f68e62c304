"""`/v1/fine_tuning/jobs`, as in OpenAI's API."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from rlhf.artifacts.run_folder import RunFolder
from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.file_routes import page
from rlhf.serve.jobs.progress import checkpoints
from rlhf.serve.jobs.request import JobRequest
from rlhf.serve.jobs.runner import model_name
from rlhf.serve.jobs.service import FineTuningService
from rlhf.serve.jobs.store import Job, JobEvent

Limit = Annotated[int, Query(ge=1, le=100)]


def job_object(job: Job) -> dict[str, Any]:
    """As clients read it."""
    asked = job.request
    settings: dict[str, Any] = {"hyperparameters": asked["hyperparameters"]}
    if asked["reward_model"]:
        settings["grader"] = {"type": "score_model", "name": "reward", "model": asked["reward_model"]}
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "estimated_finish": None,
        "model": job.model,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": job.owner,
        "status": job.status,
        "error": job.error,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "result_files": [job.result_file] if job.result_file else [],
        "hyperparameters": asked["hyperparameters"],
        "method": {"type": asked["method"], asked["method"]: settings},
        "trained_tokens": job.trained_tokens,
        "seed": asked["seed"],
        "suffix": asked["suffix"],
        "metadata": asked["metadata"],
        "integrations": [],
    }


def event_object(event: JobEvent) -> dict[str, Any]:
    """As clients read it."""
    return {
        "id": f"ftevent-{event.number}",
        "object": "fine_tuning.job.event",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": "message" if event.step is None else "metrics",
        "data": event.data,
    }


def wanted_job(service: FineTuningService, identifier: str, caller: Caller) -> Job:
    """The caller's job; 404 for any other id."""
    job = service.store.first(Job, id=identifier, owner=caller.organization)
    if job is None:
        raise ApiError(404, f"Could not find fine-tuning job: {identifier}", param="id", code="fine_tune_not_found")
    return job


def cancelled(service: FineTuningService, identifier: str, caller: Caller) -> Job:
    """The caller's job, cancelled; 400 for one that has ended."""
    job = wanted_job(service, identifier, caller)
    if not service.runner.cancel(job):
        ended = wanted_job(service, identifier, caller).status
        raise ApiError(400, f"Job has already ended: {ended}", param="id", code="invalid_status")
    return wanted_job(service, identifier, caller)


def jobs_router(service: FineTuningService, access: ApiAccess) -> APIRouter:
    """Create, list, retrieve, cancel, events, checkpoints; callers see only their own jobs."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs")
    who = Annotated[Caller, Depends(access)]

    @router.post("")
    def create(body: JobRequest, caller: who) -> dict[str, Any]:
        return job_object(service.create(body, owner=caller.organization))

    @router.get("")
    def show_all(caller: who, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        return page([job_object(job) for job in service.store.find(Job, owner=caller.organization)], after, limit)

    @router.get("/{identifier}")
    def show(identifier: str, caller: who) -> dict[str, Any]:
        return job_object(wanted_job(service, identifier, caller))

    @router.post("/{identifier}/cancel")
    def cancel(identifier: str, caller: who) -> dict[str, Any]:
        return job_object(cancelled(service, identifier, caller))

    @router.get("/{identifier}/events")
    def events(identifier: str, caller: who, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        job = wanted_job(service, identifier, caller)
        return page([event_object(event) for event in service.store.find(JobEvent, job=job.id)], after, limit)

    @router.get("/{identifier}/checkpoints")
    def list_checkpoints(identifier: str, caller: who, after: str | None = None, limit: Limit = 10) -> dict[str, Any]:
        job = wanted_job(service, identifier, caller)
        found = checkpoints(RunFolder(service.runner.folder_of(job) / "run"))
        return page([_checkpoint_object(job, each) for each in found], after, limit)

    return router


def _checkpoint_object(job: Job, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of the job. Its name is an identifier only: the model in service is the job's last."""
    return {
        "id": f"ftckpt-{job.id.rpartition('-')[2]}-{checkpoint['step']}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint["created_at"],
        "fine_tuned_model_checkpoint": f"{model_name(job)}:ckpt-step-{checkpoint['step']}",
        "fine_tuning_job_id": job.id,
        "step_number": checkpoint["step"],
        "metrics": checkpoint["figures"],
    }
