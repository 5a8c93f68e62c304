"""`/v1/fine-tunes`: jobs as in OpenAI's API of 2023, for programs that still use it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.file_routes import file_object
from rlhf.serve.jobs.request import LegacyRequest
from rlhf.serve.jobs.routes import cancelled, wanted_job
from rlhf.serve.jobs.service import FineTuningService
from rlhf.serve.jobs.store import Job, JobEvent, StoredFile

_STATUS = {"queued": "pending"}
_HYPERPARAMETERS = ("batch_size", "learning_rate_multiplier", "n_epochs", "prompt_loss_weight")


def fine_tune_object(service: FineTuningService, job: Job) -> dict[str, Any]:
    """A job with its events, oldest first."""
    hyperparameters = job.request["hyperparameters"]
    return {
        "id": job.id,
        "object": "fine-tune",
        "model": job.model,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "events": [_event(event) for event in reversed(service.store.find(JobEvent, job=job.id))],
        "fine_tuned_model": job.fine_tuned_model,
        "hyperparams": {name: hyperparameters.get(name) for name in _HYPERPARAMETERS},
        "organization_id": job.owner,
        "result_files": _files(service, job.result_file),
        "status": _STATUS.get(job.status, job.status),
        "validation_files": _files(service, job.validation_file),
        "training_files": _files(service, job.training_file),
    }


def legacy_router(service: FineTuningService, access: ApiAccess) -> APIRouter:
    """Create, list, retrieve, cancel, events."""
    router = APIRouter(prefix="/v1/fine-tunes")
    who = Annotated[Caller, Depends(access)]

    @router.post("")
    def create(body: LegacyRequest, caller: who) -> dict[str, Any]:
        request = body.modern(body.model or _only_base(service))
        return fine_tune_object(service, service.create(request, owner=caller.organization, prefix="ft"))

    @router.get("")
    def show_all(caller: who) -> dict[str, Any]:
        jobs = service.store.find(Job, owner=caller.organization)
        return {"object": "list", "data": [fine_tune_object(service, job) for job in jobs]}

    @router.get("/{identifier}")
    def show(identifier: str, caller: who) -> dict[str, Any]:
        return fine_tune_object(service, wanted_job(service, identifier, caller))

    @router.post("/{identifier}/cancel")
    def cancel(identifier: str, caller: who) -> dict[str, Any]:
        return fine_tune_object(service, cancelled(service, identifier, caller))

    @router.get("/{identifier}/events")
    def events(identifier: str, caller: who) -> dict[str, Any]:
        found = service.store.find(JobEvent, job=wanted_job(service, identifier, caller).id)
        return {"object": "list", "data": [_event(event) for event in reversed(found)]}

    return router


def _event(event: JobEvent) -> dict[str, Any]:
    return {
        "object": "fine-tune-event",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
    }


def _files(service: FineTuningService, identifier: str | None) -> list[dict[str, Any]]:
    """A list of one file, without the report of its check; empty where there is none."""
    file = service.store.first(StoredFile, id=identifier or "")
    return [] if file is None else [{key: value for key, value in file_object(file).items() if key != "validation"}]


def _only_base(service: FineTuningService) -> str:
    bases = list(service.settings.bases)
    if len(bases) == 1:
        return bases[0]
    raise ApiError(400, f"Name the model to fine-tune: {', '.join(bases)}.", param="model")
