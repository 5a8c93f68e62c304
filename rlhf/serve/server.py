"""`rlhf serve`: one application of every route over loaded models, served until SIGTERM or Ctrl-C."""

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import generate_latest

from rlhf.serve.access import ApiAccess, Caller, open_access
from rlhf.serve.chat.completions import Limits, completions_router
from rlhf.serve.chat.models import Models
from rlhf.serve.chat.page import chat_page_router
from rlhf.serve.chat.votes import VoteFiles
from rlhf.serve.errors import add_error_handlers, refusal_body
from rlhf.serve.jobs.routes import job_routers
from rlhf.serve.metrics import Metrics
from rlhf.serve.options import ServeOptions
from rlhf.serve.scores.models import Scorers, is_reward_model
from rlhf.serve.scores.routes import scores_router
from rlhf.web.guard import RequestGuard, allowed_hosts
from rlhf.web.server import listen, serve, url_of

MAX_BODY_BYTES = 4 << 20
UPLOADS = frozenset({"/v1/files"})  # this route bounds its bodies itself


def run_service(options: ServeOptions) -> None:
    """Loads the models, then serves; returns when all running requests have been answered.

    Raises: ConfigError for a host that other machines reach when there is no key, a port in use, or a file of votes
        that cannot be written; ModelError.
    """
    vote_files = None if options.votes is None else VoteFiles(options.votes)
    access = open_access(options.host, options.keys)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(options.host, options.port))  # first: a port in use is reported at once
        metrics = Metrics()
        models = Models(options.serving, metrics)
        stack.callback(models.close)
        scorers = Scorers(options.serving.dtype, options.serving.queue)
        for name, path in options.models.items():
            if is_reward_model(path):
                scorer = scorers.add(name, path)
                _say(f"{name}: a reward model, {scorer.context} tokens of context, at /v1/scores")
                continue
            model = models.add(name, path)
            _say(f"{name}: {model.context} tokens of context, {model.batcher.num_slots} answers at once")
        routers = [chat_page_router(access, vote_files, lambda name: models.get(name) is not None)]
        tuning = options.jobs(models.add)
        if tuning is not None:
            tuning.runner.start()
            stack.callback(tuning.store.close)
            stack.callback(tuning.runner.stop)
            routers += job_routers(tuning, access)
        app = build_app(
            models,
            metrics,
            access,
            routers,
            scorers=scorers,
            limits=Limits(options.timeout_s, options.chat_tokens),
            hosts=allowed_hosts(options.host),
            max_body_bytes=options.max_body_bytes,
        )
        url = url_of(options.host, listener.getsockname()[1])
        _say(f"chat page: {url}/")
        _say(f"serving on {url}/v1 (Ctrl-C or SIGTERM stops)")
        serve(app, listener, grace_s=options.drain_s)
    _say("stopped")


def build_app(
    models: Models,
    metrics: Metrics,
    access: ApiAccess,
    routers: Iterable[APIRouter] = (),
    *,
    scorers: Scorers | None = None,
    limits: Limits = Limits(),  # noqa: B008  # immutable
    hosts: frozenset[str] = frozenset(),
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """The application over loaded models.

    Args:
        metrics: the one the models report to.
        access: who may use it; a dependency of every route but `/health`.
        routers: routes besides these; they come last, so that none of them hides one of these.
        scorers: the reward models; their routes are there without any, and say so.
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

    @app.get("/health")
    def health() -> JSONResponse:
        alive = all(model.batcher.alive for model in models.all())
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get("/metrics")
    def show_metrics(caller: Annotated[Caller, Depends(access)]) -> Response:
        metrics.running.set(sum(model.batcher.num_running for model in models.all()))
        metrics.waiting.set(sum(model.batcher.num_waiting for model in models.all()))
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    scorers, count = scorers or Scorers(), metrics.prompt_tokens.inc
    core = completions_router(models, access, limits, count_prompt=count, scoring=scorers.all)
    for router in (core, scores_router(scorers, access, count_tokens=count), *routers):
        app.include_router(router)
    return app


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
