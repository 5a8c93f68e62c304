"""The guard of both applications: known hosts, no cross-site requests, bounded bodies, headers on every answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect
from starlette.types import Message

from rlhf.curate.label import app as label
from rlhf.curate.label.access import PageAccess
from rlhf.curate.label.store import LabelStore
from rlhf.serve import server as service
from rlhf.serve.access import ApiAccess
from rlhf.serve.chat.models import Models, ServingSettings
from rlhf.serve.chat.page import chat_page_router
from rlhf.serve.jobs.file_routes import MAX_FORM_BYTES
from rlhf.serve.metrics import Metrics
from rlhf.web.guard import LOOPBACK, RequestGuard, allowed_hosts

URL = "http://127.0.0.1:7000"


@dataclass
class App:
    """One of the applications: a path that is there, one that takes a body, and where its refusals say why."""

    app: FastAPI
    path: str
    takes_body: tuple[str, str]
    max_bytes: int

    def client(self, url: str = URL) -> TestClient:
        return TestClient(self.app, base_url=url, raise_server_exceptions=False)

    def message(self, content: dict[str, Any]) -> str:
        return str(content["error"]["message"] if "error" in content else content["detail"])


@pytest.fixture(params=["label", "service"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    if request.param == "label":
        store = LabelStore(tmp_path / "labels.sqlite")
        made = label.build_app(store, PageAccess("owner"), export=dict, hosts=LOOPBACK)
        yield App(made, "/api/session", ("PUT", "/api/rows/1"), label.MAX_REQUEST_BYTES)
        store.close()
    else:
        metrics, access = Metrics(), ApiAccess()
        routers = [chat_page_router(access, None, lambda name: False)]
        made = service.build_app(Models(ServingSettings(), metrics), metrics, access, routers, hosts=LOOPBACK)
        yield App(made, "/v1/models", ("POST", "/v1/completions"), service.MAX_BODY_BYTES)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7000", "LOCALHOST:80", "[::1]:7000", "[::1]"])
def test_names_of_this_machine_are_served(app: App, host: str) -> None:
    assert app.client().get(app.path, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7000", "127.0.0.1.evil.example", ""])
def test_another_name_that_points_here_is_refused(app: App, host: str) -> None:
    answer = app.client().get(app.path, headers={"host": host})
    assert (answer.status_code, app.message(answer.json())) == (421, "This address is not served here.")


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8000", "http://127.0.0.1", "null"])
def test_pages_of_other_sites_are_refused(app: App, origin: str) -> None:
    method, path = app.takes_body
    answer = app.client().request(method, path, json={}, headers={"origin": origin})
    assert answer.status_code == 403
    assert app.message(answer.json()) == "Pages of other sites may not use this service."
    assert app.client().get(app.path, headers={"origin": URL}).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(app: App, announced: bool) -> None:
    method, path = app.takes_body
    body = b" " * (app.max_bytes + 1)
    content = body if announced else (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    answer = app.client().request(method, path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert app.message(answer.json()) == f"The request is larger than {app.max_bytes:,} bytes."
    assert answer.headers["connection"] == "close"
    answer = app.client().request(method, path, content=body[:-1], headers={"content-type": "application/json"})
    assert answer.status_code in (400, 401, 422)  # let in, and found to be no request


def test_every_answer_bears_the_headers(app: App) -> None:
    method, path = app.takes_body
    client = app.client()
    answers = [
        client.get(app.path),
        client.get("/"),
        client.get("/nowhere"),
        client.request(method, path, json={}),
        client.get(app.path, headers={"host": "evil.example"}),
        client.get(app.path, headers={"origin": "http://evil.example"}),
        client.request(method, path, content=b" " * (app.max_bytes + 1)),
    ]
    assert len({answer.status_code for answer in answers}) >= 5
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].count("default-src 'none'") == 1
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_runs_its_own_script_and_other_answers_run_none(app: App) -> None:
    client = app.client()
    assert "script-src 'sha256-" in client.get("/").headers["content-security-policy"]
    if app.path == "/v1/models":
        assert "script-src" not in client.get(app.path).headers["content-security-policy"]


def test_requests_are_counted_by_route_and_status() -> None:
    metrics = Metrics()
    made = service.build_app(Models(ServingSettings(), metrics), metrics, ApiAccess(), hosts=LOOPBACK)
    client = TestClient(made, base_url=URL)
    client.get("/v1/models")
    client.get("/v1/models/gone")
    client.get("/v1/models", headers={"host": "evil.example"})
    text = client.get("/metrics").text
    assert 'rlhf_requests_total{path="/v1/models",status="200"} 1.0' in text
    assert 'rlhf_requests_total{path="/v1/models/{name:path}",status="404"} 1.0' in text
    assert 'rlhf_requests_total{path="other",status="421"} 1.0' in text


def test_uploads_bound_themselves() -> None:
    assert frozenset({"/v1/files"}) == service.UPLOADS
    assert MAX_FORM_BYTES < service.MAX_BODY_BYTES


def guarded(app: FastAPI, **settings: Any) -> RequestGuard:
    body = lambda status, message: {"status": status, "message": message}  # noqa: E731
    return RequestGuard(app, **{"hosts": frozenset(), "error_body": body, "max_bytes": 10} | settings)


def test_without_hosts_every_name_is_served_and_exempt_paths_are_not_bounded() -> None:
    app = FastAPI()

    @app.post("/small")
    @app.post("/large")
    async def size(request: Request) -> int:
        return len(await request.body())

    client = TestClient(guarded(app, bounded_elsewhere=frozenset({"/large"})), base_url="http://any.example")
    assert client.post("/small", content=b"x" * 10).json() == 10
    assert client.post("/small", content=b"x" * 11).json()["status"] == 413
    assert client.post("/large", content=b"x" * 11).json() == 11


@pytest.mark.anyio
async def test_a_client_that_leaves_in_the_middle_of_a_body_is_not_taken_for_one_that_sent_it() -> None:
    app = FastAPI()
    seen: list[bytes] = []

    @app.post("/")
    async def take(request: Request) -> None:
        seen.append(await request.body())

    coming: list[Message] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "root_path": ""}

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        pass

    with pytest.raises(ClientDisconnect):
        await guarded(app)(scope, receive, send)
    assert seen == []


def test_only_loopback_restricts_the_names() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert allowed_hosts(host) == LOOPBACK
    for host in ("0.0.0.0", "::", "192.168.0.7"):
        assert allowed_hosts(host) == frozenset()
