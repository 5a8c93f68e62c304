"""What stands before a small local web application: known hosts, bounded requests, headers that let nothing else in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_REQUEST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class PageAccess:
    """Who may come in. `people` is token -> name; empty means that people give a name themselves."""

    owner_token: str = field(repr=False)
    people: Mapping[str, str] = field(default_factory=dict, repr=False)

    def name_of(self, token: str) -> str | None:
        """Whose token it is; every token is compared in full, in a time that tells nothing."""
        found = None
        for known, name in self.people.items():
            if same_secret(known, token):
                found = name
        return found

    def is_owner(self, token: str) -> bool:
        """Whether this is the token of whoever started the page."""
        return same_secret(self.owner_token, token)


def same_secret(known: str, given: str) -> bool:
    """Whether two texts are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(known.encode(), given.encode())


def content_policy(page: str) -> str:
    """A Content-Security-Policy under which `page` runs its own inline style and script, and nothing else runs."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class RequestGuard:
    """ASGI middleware: 421 for a host that is not ours, 413 for a body over `max_bytes`, headers on every answer.

    `hosts` are the names a browser may have asked for; empty allows all, which is safe only where every request
    carries a token: a page of another site whose name points here (DNS rebinding) has none.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], policy: str, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        self.app, self.hosts, self.max_bytes = app, hosts, max_bytes
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.hosts and _host(scope) not in self.hosts:
            await _refuse(send, 421, "this address is not served here")
            return
        body = await self._body(receive)
        if body is None:
            await _refuse(send, 413, f"the request is larger than {self.max_bytes} bytes")
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self.app(scope, replay, guarded)

    async def _body(self, receive: Receive) -> bytes | None:
        """The request's body; None as soon as it is too large."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                return None
        return body


def _host(scope: Scope) -> str:
    value = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    return re.sub(r":\d+$", "", value).strip("[]").lower()


async def _refuse(send: Send, status: int, error: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
