"""The routes of files, jobs, and jobs as of 2023, over one service."""

from fastapi import APIRouter

from rlhf.serve.access import ApiAccess
from rlhf.serve.jobs.file_routes import files_router
from rlhf.serve.jobs.legacy_routes import legacy_router
from rlhf.serve.jobs.routes import jobs_router
from rlhf.serve.jobs.service import FineTuningService


def job_routers(service: FineTuningService, access: ApiAccess) -> list[APIRouter]:
    """Everything under /v1/files, /v1/fine_tuning/jobs and /v1/fine-tunes."""
    files = files_router(service.files, access, max_bytes=service.settings.max_file_bytes)
    return [files, jobs_router(service, access), legacy_router(service, access)]
