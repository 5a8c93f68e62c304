"""Serves an application on a socket until Ctrl-C or SIGTERM."""

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
    """A socket that listens already; port 0 takes a free one.

    A port in use is thus reported before anything is loaded, and clients that connect early wait until it serves.

    Raises: ConfigError when the address cannot be used.
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


def url_of(host: str, port: int) -> str:
    """The address to open in a browser: this machine's name where it listens on every address."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def serve(app: FastAPI, listener: socket.socket, *, grace_s: float = 3) -> None:
    """Serves until Ctrl-C or SIGTERM, then returns.

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
    """Ignores the signal that stopped uvicorn, which uvicorn raises once more when it returns."""
    chosen = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
