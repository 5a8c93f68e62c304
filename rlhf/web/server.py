"""Runs an application of ours on a socket until it is told to stop."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens already; 0 takes a free port.

    So a port in use is said before anything starts, and whoever is told the address can connect: they wait their turn.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        problem = f"cannot listen: {getattr(error, 'strerror', None) or error}"
        raise ConfigError(problem, where=f"{host}:{port}", fix="choose another --port (0 takes a free one)") from None
    return listener


def serve(app: FastAPI, listener: socket.socket, *, grace_s: float = 3) -> None:
    """Serves until Ctrl-C or SIGTERM, and comes back.

    Args:
        grace_s: seconds that running requests have to end, while new connections are refused.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )
    with _signals_return():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _signals_return() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more; under this that ends nothing, and we go on."""
    chosen = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
