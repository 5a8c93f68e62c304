"""`rlhf serve`: loads models and serves them until SIGTERM or Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from rlhf.errors import require_packages
from rlhf.serve.options import ServeOptions
from rlhf.web.guard import allowed_hosts
from rlhf.web.server import listen, serve, url_of


def require_serve() -> None:
    """Raises ConfigError, naming the extra, when a package the service needs is missing."""
    modules = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
    require_packages(*modules, extra="serve", needed_by="the service")


def run_service(options: ServeOptions) -> None:
    """Loads the models, then serves; returns when all running requests have been answered.

    Raises: ConfigError for a host that other machines reach when there is no key, a port in use, or a file of votes
        that cannot be written; ModelError.
    """
    require_serve()
    from rlhf.serve.access import open_access
    from rlhf.serve.app import build_app
    from rlhf.serve.chat.completions import Limits
    from rlhf.serve.chat.models import Models
    from rlhf.serve.chat.page import chat_page_router
    from rlhf.serve.chat.votes import VoteFiles
    from rlhf.serve.jobs.routers import job_routers
    from rlhf.serve.metrics import Metrics

    votes = None if options.votes is None else VoteFiles(options.votes)
    access = open_access(options.host, options.keys)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(options.host, options.port))  # first: a port in use is reported at once
        metrics = Metrics()
        models = Models(options.serving, metrics)
        stack.callback(models.close)
        for name, path in options.models.items():
            model = models.add(name, path)
            _say(f"{name}: {model.context} tokens of context, {model.batcher.num_slots} answers at once")
        routers = [chat_page_router(access, votes, lambda name: models.get(name) is not None)]
        jobs = options.jobs(models.add)
        if jobs is not None:
            jobs.start()
            stack.callback(jobs.stop)
            routers += job_routers(jobs, access)
        app = build_app(
            models,
            metrics,
            access=access,
            routers=routers,
            limits=Limits(options.timeout_s, options.chat_tokens),
            hosts=allowed_hosts(options.host),
            max_body_bytes=options.max_body_bytes,
        )
        url = url_of(options.host, listener.getsockname()[1])
        _say(f"chat page: {url}/")
        _say(f"serving on {url}/v1 (Ctrl-C or SIGTERM stops)")
        serve(app, listener, grace_s=options.drain_s)
    _say("stopped")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
