"""The application: routes, errors in the shape OpenAI's clients know, health and metrics.

Further routers (files and jobs, a page at `/`) are given by whoever builds it.
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from rlhf.serve.access import ApiAccess, ApiError, Caller, add_error_handler
from rlhf.serve.chat.completions import Limits, completions_router
from rlhf.serve.chat.models import Models
from rlhf.serve.guard import MAX_BODY_BYTES, ServiceGuard
from rlhf.serve.metrics import Metrics

_KINDS = ("str", "int", "float", "bool", "list", "body")  # parts of a place that name a type, not a key


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
        access: who may come in; a dependency of every route but `/health`.
        routers: routes beside these; they come last, so that none of them hides one of these.
        hosts: see `ServiceGuard`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(ServiceGuard, hosts=hosts, observe=metrics.request, max_bytes=max_body_bytes)
    add_error_handler(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _broken)
    app.include_router(_state_router(models, metrics, access))
    core = completions_router(models.get, models.all, access, limits, count_prompt=metrics.prompt)
    for router in (core, *routers):
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


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """The deepest problem of a body or a query: of a choice of types, the one that came nearest. Its input is not
    repeated: it may be no Unicode."""
    assert isinstance(error, RequestValidationError)
    problem: Mapping[str, Any] = max(error.errors(), key=lambda each: len(each["loc"]))
    if problem["type"] == "json_invalid":
        return _shaped(ApiError(400, "We could not parse the JSON body of your request."))
    param = _param(problem["loc"])
    if problem["type"] == "model_attributes_type" and param is None:
        return _shaped(ApiError(400, "Send a JSON object, with content-type application/json."))
    if problem["type"] == "extra_forbidden":
        return _shaped(ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter"))
    if problem["type"] == "missing":
        message = f"Missing required parameter: '{param}'." if param else "The request has no JSON body."
        return _shaped(ApiError(400, message, param=param, code="missing_required_parameter"))
    text = str(problem["msg"]).removeprefix("Value error, ").encode("utf-8", "backslashreplace").decode()[:300]
    return _shaped(ApiError(400, f"Invalid '{param}': {text}." if param else f"{text}.", param=param))


def _param(place: Iterable[Any]) -> str | None:
    """("body", "messages", 0, "content", "str") as messages[0].content."""
    found = ""
    for part in place:
        if isinstance(part, int):
            found += f"[{part}]"
        elif part not in _KINDS and re.fullmatch(r"\w+", part, re.ASCII):
            found += f".{part}" if found else part
    return found[:200] or None


def _refused(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: no such route, a method a route has not, a body that cannot be read."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ApiError):  # the guard stopped the body while the framework read it
        return _shaped(error.__cause__)
    where = f"({request.method} {request.url.path})".encode("utf-8", "backslashreplace").decode()
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _shaped(ApiError(404, f"Invalid URL {where}", code="unknown_url"))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _shaped(ApiError(405, f"Not allowed {where}", code="method_not_supported"))
    return _shaped(ApiError(error.status_code, str(error.detail)))


def _broken(_: Request, error: Exception) -> JSONResponse:
    message = "The service had an error while it worked on your request."
    return _shaped(ApiError(500, message, type="server_error", code="server_error"))


def _shaped(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, headers=error.headers())
