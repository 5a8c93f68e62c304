"""The page people label on, and its HTTP interface over a LabelStore.

The names of the models never reach the page, except the owner's /agreement.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from rlhf.curate.label.access import PageAccess
from rlhf.curate.label.agreement import label_report
from rlhf.curate.label.draft import Draft, Verdict
from rlhf.curate.label.store import LabelStore
from rlhf.curate.output import Output
from rlhf.errors import ArtifactError, RlhfError
from rlhf.web.guard import RequestGuard
from rlhf.web.page import content_policy, load_page

MAX_NAME_CHARACTERS = 40
MAX_REQUEST_BYTES = 256 * 1024
MAX_PEOPLE = 200  # who enter a name themselves


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Submission(Draft):
    """A row that is submitted."""

    verdict: Verdict


def build_app(
    store: LabelStore,
    access: PageAccess,
    *,
    export: Callable[[], Output],
    hosts: frozenset[str] = frozenset(),
) -> FastAPI:
    """The application.

    Args:
        access: the tokens of people; without people in it, a person sends a name (header X-Annotator).
        export: writes the labels; the rows and the file, or its RlhfError, are shown.
        hosts: see `RequestGuard`.
    """
    page = load_page("rlhf.curate.label")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(
        RequestGuard,
        hosts=hosts,
        error_body=lambda status, message: {"detail": message},
        max_bytes=MAX_REQUEST_BYTES,
        policy=content_policy(page),
    )
    app.add_exception_handler(RlhfError, _user_error)
    app.add_exception_handler(RequestValidationError, _bad_request)

    @app.get("/")
    @app.get("/agreement")
    def show() -> HTMLResponse:
        return HTMLResponse(page)

    _add_labelling(app, store, access)
    _add_results(app, store, access, export)
    return app


def _add_labelling(app: FastAPI, store: LabelStore, access: PageAccess) -> None:
    def person(request: Request) -> str:
        name = _person(request, access)
        if not access.people and store.num_people() >= MAX_PEOPLE and not store.knows(name):
            raise HTTPException(403, "too many people")
        return name

    who = Annotated[str, Depends(person)]

    @app.get("/api/session")
    def session() -> dict[str, bool]:
        return {"asks_name": not access.people}

    @app.get("/api/row")
    def current(name: who) -> dict[str, Any]:
        return _state(store, name)

    @app.put("/api/rows/{number}")
    def save(number: int, body: Draft, name: who) -> dict[str, bool]:
        store.save(name, number, body)
        return {"saved": True}

    @app.post("/api/rows/{number}")
    def submit(number: int, body: Submission, name: who) -> dict[str, Any]:
        store.submit(name, number, body.verdict, body)
        return _state(store, name)

    @app.post("/api/undo")
    def undo(name: who) -> dict[str, Any]:
        return {"undone": store.undo(name), **_state(store, name)}


def _add_results(app: FastAPI, store: LabelStore, access: PageAccess, export: Callable[[], Output]) -> None:
    @app.post("/api/export")
    def write(request: Request) -> dict[str, Any]:
        if not access.is_owner(_token(request)):
            _person(request, access)
        output = export()
        return {"rows": output.kept, "file": output.path.name}

    @app.get("/api/agreement")
    def agreement(request: Request) -> dict[str, Any]:
        if not access.is_owner(_token(request)):
            raise HTTPException(401, "this page needs the owner's link, which the terminal shows")
        return label_report(store.judgements())


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _person(request: Request, access: PageAccess) -> str:
    # A browser asks this server before a page of another site may send a custom header, and is refused.
    if access.people:
        name = access.name_of(_token(request))
        if name is None:
            raise HTTPException(401, "the link is not valid")
        return name
    given = unicodedata.normalize("NFC", unquote(request.headers.get("x-annotator", ""))).strip()
    if not given or len(given) > MAX_NAME_CHARACTERS or not given.isprintable():
        raise HTTPException(401, f"a name of 1 to {MAX_NAME_CHARACTERS} characters is needed")
    return given


def _state(store: LabelStore, name: str) -> dict[str, Any]:
    """The row a person is labelling and their progress, without models and sources."""
    row = store.open_row(name)
    done, left = store.progress(name)
    state: dict[str, Any] = {"name": name, "done": done, "left": left, "row": None}
    if row is not None:
        state["row"] = {
            "number": row.number,
            "prompt": [asdict(turn) for turn in row.item.prompt],
            "answers": [row.item.responses[answer] for answer in row.shown],
            **asdict(row.draft),
        }
    return state


def _user_error(_: Request, error: Exception) -> JSONResponse:
    """422 for what the person sent; 503 for a store that cannot be written now, at which the page tries again."""
    problem = error.problem if isinstance(error, RlhfError) else str(error)
    return JSONResponse({"detail": problem}, 503 if isinstance(error, ArtifactError) else 422)


def _bad_request(_: Request, error: Exception) -> JSONResponse:
    # The framework's own answer repeats the input, which fails on invalid Unicode.
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    texts = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems]
    return JSONResponse({"detail": "; ".join(texts)[:500]}, 422)
