"""Who may use the service, and how much: a bearer key, requests per minute, tokens per day.

`ApiAccess` is a FastAPI dependency: `caller: Annotated[Caller, Depends(access)]`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import Request

from rlhf.errors import ConfigError
from rlhf.serve.errors import ApiError
from rlhf.serve.keys import ApiKey, KeyStore
from rlhf.web.guard import LOOPBACK

WINDOW_S = 60.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request; `key` is None where no keys are needed."""

    key: ApiKey | None = None

    @property
    def organization(self) -> str:
        """The owner of files and jobs: `organization_id` in job objects."""
        return "org-local" if self.key is None else f"org-{self.key.id}"


class ApiAccess:
    """Admits requests. Without a store every client of this machine is admitted, without limits.

    Args:
        keys: looked up at each request, so that a revoked key ends at once.
        now: seconds since 1970.
    """

    def __init__(self, keys: KeyStore | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._keys, self._now = keys, now
        self._lock = threading.Lock()
        self._recent: dict[str, deque[float]] = {}

    def __call__(self, request: Request) -> Caller:
        """The sender of a request, counted against their requests per minute; raises ApiError 401 or 429."""
        if self._keys is None:
            return Caller()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = self._keys.find(token.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise ApiError(
                401,
                "No such API key, or it was revoked. Send one as `Authorization: Bearer KEY`; "
                "the operator makes them with `rlhf keys add`.",
                code="invalid_api_key",
            )
        self._count(key)
        self._require_quota(key)
        return Caller(key)

    def spend(self, caller: Caller, tokens: int) -> None:
        """Counts tokens, prompt and answer, against the caller's day."""
        if self._keys is not None and caller.key is not None:
            self._keys.spend(caller.key.id, self._day(), tokens)

    def _count(self, key: ApiKey) -> None:
        if key.requests_per_minute is None:
            return
        with self._lock:
            now, recent = self._now(), self._recent.setdefault(key.id, deque())
            while recent and recent[0] <= now - WINDOW_S:
                recent.popleft()
            if len(recent) < key.requests_per_minute:
                recent.append(now)
                return
            wait = recent[0] + WINDOW_S - now
        limit = f"{key.requests_per_minute} requests per minute"
        message = f"This key may send {limit}. Try again in {math.ceil(wait)} s."
        raise ApiError(429, message, type="requests", code="rate_limit_exceeded", retry_after_s=wait)

    def _require_quota(self, key: ApiKey) -> None:
        if key.tokens_per_day is None or self._keys is None:
            return
        used = self._keys.spent(key.id, self._day())
        if used < key.tokens_per_day:
            return
        wait = DAY_S - self._now() % DAY_S  # until midnight, UTC
        message = f"This key's {key.tokens_per_day:,} tokens per day are spent ({used:,}). They renew at 00:00 UTC."
        raise ApiError(429, message, type="insufficient_quota", code="insufficient_quota", retry_after_s=wait)

    def _day(self) -> str:
        """Today in UTC, 2023-04-05."""
        return datetime.fromtimestamp(self._now(), UTC).date().isoformat()


def open_access(host: str, keys_file: Path) -> ApiAccess:
    """Access for a service that listens on `host`: by key where the file holds any, else for this machine only.

    Raises: ConfigError for a host that other machines reach when there is no key.
    """
    if keys_file.is_file():
        store = KeyStore(keys_file)
        if store.all():  # revoked ones too: revoking the last key must not open the service
            return ApiAccess(store)
        store.close()
    if host in LOOPBACK:
        return ApiAccess()
    raise ConfigError(
        "other machines could use the service, and there is no API key",
        where=f"--host {host}",
        expected="a key for each client, or a loopback address",
        fix=f"rlhf keys add NAME --keys {keys_file}, or --host 127.0.0.1",
    )
