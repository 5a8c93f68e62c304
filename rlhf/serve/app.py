"""The application: routes, errors, health and metrics.

Whoever builds it gives further routers (files and jobs, a page at `/`).
"""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse, Response

from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.chat.completions import Limits, completions_router
from rlhf.serve.chat.models import Models
from rlhf.serve.errors import add_error_handlers, refusal_body
from rlhf.serve.metrics import Metrics
from rlhf.web.guard import RequestGuard

MAX_BODY_BYTES = 4 << 20
UPLOADS = frozenset({"/v1/files"})  # this route bounds its bodies itself


def build_app(
    models: Models,
    metrics: Metrics,
    *,
    access: ApiAccess,
    routers: Iterable[APIRouter] = (),
    limits: Limits = Limits(),  # noqa: B008  # immutable
    hosts: frozenset[str] = frozenset(),
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """The application over loaded models.

    Args:
        metrics: the one the models report to.
        access: who may use it; a dependency of every route but `/health`.
        routers: routes besides these; they come last, so that none of them hides one of these.
        hosts: see `RequestGuard`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(
        RequestGuard,
        hosts=hosts,
        error_body=refusal_body,
        max_bytes=max_body_bytes,
        bounded_elsewhere=UPLOADS,
        observe=metrics.request,
    )
    add_error_handlers(app)
    core = completions_router(models, access, limits, count_prompt=metrics.prompt)
    for router in (_state_router(models, metrics, access), core, *routers):
        app.include_router(router)
    return app


def _state_router(models: Models, metrics: Metrics, access: ApiAccess) -> APIRouter:
    """`/health`, open to all, and `/metrics`."""
    router = APIRouter()

    @router.get("/health")
    def health() -> JSONResponse:
        alive = all(model.batcher.alive for model in models.all())
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @router.get("/metrics")
    def show_metrics(caller: Annotated[Caller, Depends(access)]) -> Response:
        batchers = [model.batcher for model in models.all()]
        metrics.levels(sum(each.num_running for each in batchers), sum(each.num_waiting for each in batchers))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
