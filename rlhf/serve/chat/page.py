"""The chat page at `/`, and the routes of its votes."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.chat.votes import Rating, Vote, VoteFiles
from rlhf.serve.errors import ApiError
from rlhf.web.page import content_policy, load_page

VOTES_OFF, VOTES_ON = '<html lang="ko" data-votes="off">', '<html lang="ko" data-votes="on">'


def chat_page_router(access: ApiAccess, votes: VoteFiles | None, is_served: Callable[[str], bool]) -> APIRouter:
    """`GET /`, open to all since it holds no data; `POST /v1/votes` and `/v1/ratings` where there are files for them.

    Args:
        is_served: whether a model of that name is in service.
    """
    router = APIRouter()
    page = load_page("rlhf.serve.chat")
    if votes is not None:
        page = page.replace(VOTES_OFF, VOTES_ON)
    headers = {"content-security-policy": content_policy(page)}

    @router.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    if votes is None:
        return router
    who = Annotated[Caller, Depends(access)]

    @router.post("/v1/votes", status_code=201)
    def vote(body: Vote, caller: who) -> dict[str, bool]:
        return save(body, body.models, caller)

    @router.post("/v1/ratings", status_code=201)
    def rate(body: Rating, caller: who) -> dict[str, bool]:
        return save(body, [body.model], caller)

    def save(body: Vote | Rating, names: list[str], caller: Caller) -> dict[str, bool]:
        unknown = next((name for name in names if not is_served(name)), None)
        if unknown is not None:
            raise ApiError(404, f"The model `{unknown}` does not exist.", param="model", code="model_not_found")
        votes.add(body, None if caller.key is None else caller.key.id)
        return {"saved": True}

    return router
