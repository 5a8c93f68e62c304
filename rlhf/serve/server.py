"""`rlhf serve`: models in, a service until SIGTERM or Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib.util import find_spec

from rlhf.errors import ConfigError
from rlhf.serve.options import ServeOptions
from rlhf.web.guard import LOOPBACK
from rlhf.web.server import listen, serve


def require_serve() -> None:
    """Raises ConfigError, naming the extra, when a package the service needs is missing."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}", fix="pip install 'rlhf[serve]'")


def run_service(options: ServeOptions) -> None:
    """Loads the models, then serves; comes back when everything that ran has been answered.

    Raises: ConfigError for a host other machines reach when nobody has a key, a port in use, or a file of votes that
        cannot be written; ModelError.
    """
    require_serve()
    from rlhf.serve.access import open_access
    from rlhf.serve.app import build_app
    from rlhf.serve.chat.completions import Limits
    from rlhf.serve.chat.models import Models
    from rlhf.serve.chat.page import chat_page_router
    from rlhf.serve.chat.votes import VoteFiles
    from rlhf.serve.metrics import Metrics

    votes = None if options.votes is None else VoteFiles(options.votes)
    access = open_access(options.host, options.keys)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(options.host, options.port))  # first: a port in use is said at once
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
            routers += jobs.routers(access)
        app = build_app(
            models,
            metrics,
            access=access,
            routers=routers,
            limits=Limits(options.timeout_s, options.chat_tokens),
            hosts=LOOPBACK if options.host in LOOPBACK else frozenset(),
            max_body_bytes=options.max_body_bytes,
        )
        address = _address(options.host, listener.getsockname()[1])
        _say(f"chat page: {address.removesuffix('v1')}")
        _say(f"serving on {address} (Ctrl-C or SIGTERM stops)")
        serve(app, listener, grace_s=options.drain_s)
    _say("stopped")


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
