"""ASGI middleware before every web application here: known hosts, no cross-site requests, bounded bodies, headers."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
NO_CONTENT = "default-src 'none'; frame-ancestors 'none'"
HEADERS = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"no-referrer", b"cache-control": b"no-store"}


class RequestGuard:
    """Answers 421 for an unknown host, 403 for a page of another site, 413 for a body over `max_bytes`.

    Args:
        hosts: names a client may have asked for; empty allows all, which is safe only where every request carries a
            token: a page of another site whose name points here (DNS rebinding) has none.
        error_body: the JSON of a refusal, by status and message.
        max_bytes: of a request's body.
        policy: Content-Security-Policy of answers that set none.
        bounded_elsewhere: paths whose routes bound their bodies themselves.
        observe: called with the route, the status and the seconds of every request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str],
        error_body: Callable[[int, str], Mapping[str, Any]],
        max_bytes: int,
        policy: str = NO_CONTENT,
        bounded_elsewhere: frozenset[str] = frozenset(),
        observe: Callable[[str, int, float], None] = lambda route, status, seconds: None,
    ) -> None:
        self._app, self._hosts, self._error_body, self._max_bytes = app, hosts, error_body, max_bytes
        self._headers = HEADERS | {b"content-security-policy": policy.encode()}
        self._bounded_elsewhere, self._observe = bounded_elsewhere, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in self._headers.items() if name not in given]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self._handle(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._observe(route, status, time.monotonic() - started)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._hosts and re.sub(r":\d+$", "", host).strip("[]").lower() not in self._hosts:
            await self._refuse(send, 421, "This address is not served here.")
        elif origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            await self._refuse(send, 403, "Pages of other sites may not use this service.")
        elif scope["path"] in self._bounded_elsewhere:
            await self._app(scope, receive, send)
        elif (received := await self._received(headers.get(b"content-length", ""), receive)) is None:
            await self._refuse(send, 413, f"The request is larger than {self._max_bytes:,} bytes.")
        else:
            await self._app(scope, received, send)

    async def _received(self, announced: str, receive: Receive) -> Receive | None:
        """A `receive` that gives the request, read already; None as soon as its body is known to be too large."""
        if announced.isdecimal() and int(announced) > self._max_bytes:
            return None
        messages: deque[Message] = deque()
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            if size <= self._max_bytes:
                messages.append(message)
            # What is a little too large is read to its end: a client that is cut off while it sends sees no refusal.
            more = message.get("more_body", False) and size <= 2 * self._max_bytes
        if size > self._max_bytes:
            return None

        async def replay() -> Message:
            return messages.popleft() if messages else await receive()

        return replay

    async def _refuse(self, send: Send, status: int, message: str) -> None:
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = json.dumps(self._error_body(status, message)).encode()
        await send({"type": "http.response.body", "body": body})


def allowed_hosts(host: str) -> frozenset[str]:
    """The names a server that listens on `host` answers to: this machine's alone on loopback, else all (empty)."""
    return LOOPBACK if host in LOOPBACK else frozenset()
