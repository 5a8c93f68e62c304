"""`/v1/fine_tuning/jobs` as in OpenAI's API, and `/v1/fine-tunes` as in its API of 2023, for programs that use it."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.file_routes import file_object, files_router, page
from rlhf.serve.jobs.progress import checkpoints
from rlhf.serve.jobs.request import JobRequest, LegacyRequest
from rlhf.serve.jobs.runner import model_name
from rlhf.serve.jobs.service import FineTuningService
from rlhf.serve.jobs.store import Job, JobEvent, StoredFile

Limit = Annotated[int, Query(ge=1, le=100)]
GetJob = Callable[..., Job]
# Columns that clients read under the store's own name.
JOB_KEYS = (
    *("id", "created_at", "finished_at", "model", "fine_tuned_model", "status", "error", "trained_tokens"),
    *("training_file", "validation_file"),
)
REQUEST_KEYS = ("hyperparameters", "seed", "suffix", "metadata")
EVENT_KEYS = ("created_at", "level", "message")
LEGACY_KEYS = ("id", "model", "created_at", "updated_at", "fine_tuned_model")
LEGACY_HYPERPARAMETERS = ("batch_size", "learning_rate_multiplier", "n_epochs", "prompt_loss_weight")


def job_routers(service: FineTuningService, access: ApiAccess) -> list[APIRouter]:
    """Everything under /v1/files, /v1/fine_tuning/jobs and /v1/fine-tunes; callers see only what is their own."""
    who = Annotated[Caller, Depends(access)]

    def own(identifier: str, caller: who) -> Job:
        """The caller's job; 404 for any other id."""
        job = service.store.first(Job, id=identifier, owner=caller.organization)
        if job is None:
            raise ApiError(404, f"Could not find fine-tuning job: {identifier}", param="id", code="fine_tune_not_found")
        return job

    def cancelled(identifier: str, caller: who) -> Job:
        """The caller's job, cancelled; 400 for one that has ended."""
        done = service.runner.cancel(own(identifier, caller))
        job = own(identifier, caller)
        if not done:
            raise ApiError(400, f"Job has already ended: {job.status}", param="id", code="invalid_status")
        return job

    files = files_router(service.files, access, max_bytes=service.settings.max_file_bytes)
    return [files, _jobs_router(service, access, own, cancelled), _legacy_router(service, access, own, cancelled)]


def _jobs_router(service: FineTuningService, access: ApiAccess, own: GetJob, cancelled: GetJob) -> APIRouter:
    """Create, list, retrieve, cancel, events, checkpoints."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs")
    who = Annotated[Caller, Depends(access)]
    mine = Annotated[Job, Depends(own)]

    @router.post("")
    def create(body: JobRequest, caller: who) -> dict[str, Any]:
        return _job_object(service.create(body, owner=caller.organization))

    @router.get("")
    def show_all(caller: who, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        return page([_job_object(job) for job in service.store.find(Job, owner=caller.organization)], after, limit)

    @router.get("/{identifier}")
    def show(job: mine) -> dict[str, Any]:
        return _job_object(job)

    @router.post("/{identifier}/cancel")
    def cancel(job: Annotated[Job, Depends(cancelled)]) -> dict[str, Any]:
        return _job_object(job)

    @router.get("/{identifier}/events")
    def events(job: mine, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        return page([_event_object(event) for event in service.store.find(JobEvent, job=job.id)], after, limit)

    @router.get("/{identifier}/checkpoints")
    def list_checkpoints(job: mine, after: str | None = None, limit: Limit = 10) -> dict[str, Any]:
        found = checkpoints(service.runner.run_of(job))
        return page([_checkpoint_object(job, each) for each in found], after, limit)

    return router


def _legacy_router(service: FineTuningService, access: ApiAccess, own: GetJob, cancelled: GetJob) -> APIRouter:
    """Create, list, retrieve, cancel, events."""
    router = APIRouter(prefix="/v1/fine-tunes")
    who = Annotated[Caller, Depends(access)]
    mine = Annotated[Job, Depends(own)]

    @router.post("")
    def create(body: LegacyRequest, caller: who) -> dict[str, Any]:
        bases = list(service.settings.bases)
        if body.model is None and len(bases) != 1:
            raise ApiError(400, f"Name the model to fine-tune: {', '.join(bases)}.", param="model")
        request = body.modern(body.model or bases[0])
        return _legacy_object(service, service.create(request, owner=caller.organization, prefix="ft"))

    @router.get("")
    def show_all(caller: who) -> dict[str, Any]:
        jobs = service.store.find(Job, owner=caller.organization)
        return {"object": "list", "data": [_legacy_object(service, job) for job in jobs]}

    @router.get("/{identifier}")
    def show(job: mine) -> dict[str, Any]:
        return _legacy_object(service, job)

    @router.post("/{identifier}/cancel")
    def cancel(job: Annotated[Job, Depends(cancelled)]) -> dict[str, Any]:
        return _legacy_object(service, job)

    @router.get("/{identifier}/events")
    def events(job: mine) -> dict[str, Any]:
        return {"object": "list", "data": _legacy_events(service, job)}

    return router


def _values(entry: Job | JobEvent, keys: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in keys}


def _job_object(job: Job) -> dict[str, Any]:
    asked = job.request
    settings: dict[str, Any] = {"hyperparameters": asked["hyperparameters"]}
    if asked["reward_model"]:
        settings["grader"] = {"type": "score_model", "name": "reward", "model": asked["reward_model"]}
    return {
        "object": "fine_tuning.job",
        **_values(job, JOB_KEYS),
        **{name: asked[name] for name in REQUEST_KEYS},
        "organization_id": job.owner,
        "result_files": [job.result_file] if job.result_file else [],
        "method": {"type": asked["method"], asked["method"]: settings},
        "estimated_finish": None,
        "integrations": [],
    }


def _event_object(event: JobEvent) -> dict[str, Any]:
    kind = "message" if event.step is None else "metrics"
    identity = {"id": f"ftevent-{event.number}", "object": "fine_tuning.job.event"}
    return identity | _values(event, EVENT_KEYS) | {"type": kind, "data": event.data}


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


def _legacy_object(service: FineTuningService, job: Job) -> dict[str, Any]:
    """A job with its events and files, as clients of 2023 read it."""
    hyperparameters = job.request["hyperparameters"]

    def files(identifier: str | None) -> list[dict[str, Any]]:
        """A list of one file, without the report of its check; empty where there is none."""
        file = service.store.first(StoredFile, id=identifier or "")
        return [] if file is None else [{k: value for k, value in file_object(file).items() if k != "validation"}]

    return {
        "object": "fine-tune",
        **_values(job, LEGACY_KEYS),
        "events": _legacy_events(service, job),
        "hyperparams": {name: hyperparameters.get(name) for name in LEGACY_HYPERPARAMETERS},
        "organization_id": job.owner,
        "result_files": files(job.result_file),
        "status": "pending" if job.status == "queued" else job.status,
        "validation_files": files(job.validation_file),
        "training_files": files(job.training_file),
    }


def _legacy_events(service: FineTuningService, job: Job) -> list[dict[str, Any]]:
    """Oldest first."""
    found = reversed(service.store.find(JobEvent, job=job.id))
    return [{"object": "fine-tune-event", **_values(event, EVENT_KEYS)} for event in found]
