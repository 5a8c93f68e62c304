"""What stands before the service: known hosts, no requests from other sites' pages, bounded bodies, safe headers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlhf.serve.access import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4 << 20
OWN_LIMIT = ("/v1/files",)  # routes that bound their bodies themselves
HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


class ServiceGuard:
    """ASGI middleware: 421 for a host that is not ours, 403 for a page of another origin, 413 for a body over
    `max_bytes`.

    Args:
        hosts: names a client may have asked for; empty allows all, which is safe only where every request carries a
            key: a page of another site whose name points here (DNS rebinding) has none.
        observe: told route, status and seconds of every request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str],
        observe: Callable[[str, int, float], None],
        max_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.app, self.hosts, self.observe, self.max_bytes = app, hosts, observe, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in HEADERS.items() if name not in given]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self.app(scope, self._bounded(scope, receive), guarded)
            else:
                await _answer(guarded, refusal)
        finally:
            route = scope.get("route")
            self.observe(getattr(route, "path", "other"), status, time.monotonic() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        """Why a request is not let in, by its headers."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.hosts and _name(host) not in self.hosts:
            return ApiError(421, "This address is not served here.")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return ApiError(403, "Pages of other sites may not use this service.")
        announced = headers.get(b"content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes and not self._bounds_itself(scope):
            return self._too_large()
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, which fails as soon as a body whose length was not announced is too large."""
        if self._bounds_itself(scope):
            return receive
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.max_bytes:
                raise self._too_large()
            return message

        return counted

    def _bounds_itself(self, scope: Scope) -> bool:
        return scope["path"] in OWN_LIMIT

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The request is larger than {self.max_bytes:,} bytes.", code="request_too_large")


def _name(host: str) -> str:
    return re.sub(r":\d+$", "", host).strip("[]").lower()


async def _answer(send: Send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.body()).encode()})
