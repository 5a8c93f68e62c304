"""`/v1/files`: the data that jobs train on."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.errors import ApiError
from rlhf.serve.jobs.file_store import FileStore, problems
from rlhf.serve.jobs.store import StoredFile

MAX_BYTES = 512 << 20
MAX_FORM_BYTES = 1 << 20  # limit on the other fields of a form


def file_object(file: StoredFile) -> dict[str, Any]:
    """As clients read it. `validation`, which OpenAI's API lacks, is the whole report of the check."""
    shown = {name: getattr(file, name) for name in ("id", "bytes", "created_at", "filename", "purpose", "status")}
    details = "\n".join(problems(file)) or None
    return {"object": "file", **shown, "status_details": details, "validation": file.report or None}


def files_router(files: FileStore, access: ApiAccess, *, max_bytes: int = MAX_BYTES) -> APIRouter:
    """Upload, list, retrieve, content, delete; callers see only their own files."""
    router = APIRouter()
    who = Annotated[Caller, Depends(access)]

    def own(identifier: str, caller: who) -> StoredFile:
        file = files.store.first(StoredFile, id=identifier, owner=caller.organization)
        if file is None:
            raise ApiError(404, f"No such File object: {identifier}", param="id", code="not_found")
        return file

    mine = Annotated[StoredFile, Depends(own)]

    @router.post("/v1/files")
    async def upload(request: Request, caller: who) -> dict[str, Any]:
        form = await _form(request, max_bytes)
        try:
            content, purpose = form.get("file"), form.get("purpose")
            if not isinstance(content, UploadFile):
                raise ApiError(400, "The form has no `file`.", param="file")
            if not isinstance(purpose, str):
                raise ApiError(400, "The form has no `purpose`; send fine-tune.", param="purpose")
            stored = await run_in_threadpool(
                files.add, content.file, content.filename or "", owner=caller.organization, purpose=purpose
            )
        finally:
            await form.close()
        return file_object(stored)

    @router.get("/v1/files")
    def show_all(
        caller: who,
        purpose: str | None = None,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    ) -> dict[str, Any]:
        found = files.store.find(StoredFile, owner=caller.organization, purpose=purpose)
        return page([file_object(file) for file in (found if order == "desc" else found[::-1])], after, limit)

    @router.get("/v1/files/{identifier}")
    def show(file: mine) -> dict[str, Any]:
        return file_object(file)

    @router.get("/v1/files/{identifier}/content")
    def content(file: mine) -> FileResponse:
        return FileResponse(files.path(file), media_type="application/octet-stream")

    @router.delete("/v1/files/{identifier}")
    def delete(file: mine) -> dict[str, Any]:
        files.remove(file)
        return {"id": file.id, "object": "file", "deleted": True}

    return router


def page(items: list[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    """A part of a list, after the item whose id is `after`; 400 when there is none."""
    start = 0
    if after is not None:
        start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), -1)
        if start < 0:
            raise ApiError(400, f"No item of this list has the id {after}", param="after")
    shown = items[start : start + limit]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {"object": "list", "data": shown, "has_more": start + limit < len(items), **ends}


async def _form(request: Request, max_bytes: int) -> FormData:
    """A multipart body, the file on disk; 413 as soon as it is too large."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "Send the file as multipart/form-data, with `file` and `purpose`.", param="file")
    limit = max_bytes + MAX_FORM_BYTES
    too_large = ApiError(413, f"The file is larger than {max_bytes:,} bytes.", param="file", code="file_too_large")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large

    async def counted() -> AsyncGenerator[bytes, None]:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            if total > limit:
                raise too_large
            yield chunk

    try:
        form = await MultiPartParser(request.headers, counted(), max_files=1, max_fields=8).parse()
    except (MultiPartException, FormParserError) as error:  # the second is not caught by every starlette
        raise ApiError(400, f"The form cannot be read: {error}", param="file") from None
    content = form.get("file")
    if isinstance(content, UploadFile) and (content.size or 0) > max_bytes:
        await form.close()
        raise too_large
    return form
