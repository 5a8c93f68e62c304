"""`/v1/models`, `/v1/chat/completions` and `/v1/completions`."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from rlhf.data.encode import Ids
from rlhf.errors import DataError
from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.chat.batching import Ask, QueueFullError, Ticket
from rlhf.serve.chat.models import ServedModel, check_encodable
from rlhf.serve.chat.replies import ChatStyle, CompletionStyle, Reply
from rlhf.serve.chat.requests import ChatRequest, CompletionRequest, SamplingRequest, bad_request
from rlhf.serve.errors import ApiError

CLIENT_GONE = 499  # nobody reads it


@dataclass(frozen=True, slots=True)
class Limits:
    """timeout_s: until a request is given up; chat_tokens: longest chat answer where none is asked for, None for all
    the model has room for."""

    timeout_s: float = 600.0
    chat_tokens: int | None = None


class TimedOutError(Exception):
    """A request took longer than it may."""


def completions_router(
    find: Callable[[str], ServedModel | None],
    show: Callable[[], Sequence[ServedModel]],
    access: ApiAccess,
    limits: Limits,
    *,
    count_prompt: Callable[[int], None],
) -> APIRouter:
    """The routes.

    Args:
        find: a model by name.
        show: all models.
        count_prompt: told the tokens of each prompt that is taken on.
    """
    router = APIRouter()
    who = Annotated[Caller, Depends(access)]
    answering = Answering(access, limits.timeout_s, count_prompt)

    @router.get("/v1/models")
    def models(caller: who) -> dict[str, Any]:
        return {"object": "list", "data": [_model_object(model) for model in show()]}

    @router.get("/v1/models/{name:path}")
    def one_model(name: str, caller: who) -> dict[str, Any]:
        return _model_object(_known(find, name))

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request, caller: who) -> Response:
        asks, reply = await _chat(_known(find, body.model), body, limits)
        return await answering.answer(body, request, caller, asks, reply)

    @router.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request, caller: who) -> Response:
        asks, reply = await _completion(_known(find, body.model), body)
        return await answering.answer(body, request, caller, asks, reply)

    return router


async def _chat(model: ServedModel, body: ChatRequest, limits: Limits) -> tuple[Sequence[Ask], Reply]:
    """What a chat asks of the model, and the reply that is to be filled."""
    ids = await run_in_threadpool(_chat_ids, model, body)
    asked = body.max_completion_tokens or body.max_tokens
    limit = asked or min(limits.chat_tokens or model.context, max(1, model.context - len(ids)))
    asks = _asks(model, body, [ids], limit, body.num_likeliest, "messages")
    return asks, Reply(ChatStyle(), model, len(asks), len(ids), bool(body.logprobs), body.include_usage)


async def _completion(model: ServedModel, body: CompletionRequest) -> tuple[Sequence[Ask], Reply]:
    """As `_chat`, for texts that are to go on."""
    prompts = await run_in_threadpool(_prompt_ids, model, body)
    asks = _asks(model, body, prompts, body.max_tokens or 16, body.logprobs, "prompt")
    lengths = [len(model.tokenizer.text(ids.tolist())) for ids in prompts] if body.logprobs is not None else []
    style = CompletionStyle(lambda index: lengths[index // body.num_choices])
    tokens = sum(map(len, prompts))
    return asks, Reply(style, model, len(asks), tokens, body.logprobs is not None, body.include_usage)


@dataclass(frozen=True, slots=True)
class Answering:
    """Has a reply filled by its model, whole or as a stream; the caller pays for the tokens however it ends.

    timeout_s: until a request is given up; count_prompt: told the tokens of each prompt that is taken on.
    """

    access: ApiAccess
    timeout_s: float
    count_prompt: Callable[[int], None]

    async def answer(
        self, body: SamplingRequest, request: Request, caller: Caller, asks: Sequence[Ask], reply: Reply
    ) -> Response:
        """Raises ApiError: a full queue, a request that took too long, a model that failed."""
        ticket = _submit(reply.model, asks)
        self.count_prompt(reply.prompt_tokens)
        timer = ticket.loop.call_later(self.timeout_s, ticket.put, TimedOutError())

        def close() -> None:
            timer.cancel()
            ticket.cancel()
            tokens = reply.prompt_tokens + reply.completion_tokens
            ticket.loop.run_in_executor(None, self.access.spend, caller, tokens)

        if body.stream:
            return _Stream(_events(ticket, reply), close)
        try:
            return await _whole(ticket, reply, request)
        finally:
            close()


class _Stream(StreamingResponse):
    """Server-sent events. `close` is called however it ends, also when the client leaves before it begins."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _events(ticket: Ticket, reply: Reply) -> AsyncIterator[str]:
    try:
        async for pieces in ticket.pieces():
            chunks = []
            for piece in pieces:
                reply.count(piece)
                chunks += reply.chunks(piece)
            yield "".join(map(_event, chunks))
        if reply.include_usage:
            yield _event(reply.last_chunk())
        yield "data: [DONE]\n\n"
    except Exception as error:  # noqa: BLE001  # the status has been sent: the error can only be an event
        yield _event(_failure(error).body())


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _whole(ticket: Ticket, reply: Reply, request: Request) -> Response:
    """The whole reply; given up as soon as the client has left."""

    async def collect() -> None:
        async for pieces in ticket.pieces():
            for piece in pieces:
                reply.count(piece)
                reply.keep(piece)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work, leaving = asyncio.ensure_future(collect()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=CLIENT_GONE)
        await work
    except Exception as error:
        raise _failure(error) from error
    finally:
        work.cancel()
        leaving.cancel()
    return JSONResponse(reply.whole())


def _failure(error: Exception) -> ApiError:
    if isinstance(error, TimedOutError):
        return ApiError(408, "The request took too long.", type="timeout", code="timeout")
    return ApiError(500, f"The model failed: {type(error).__name__}.", type="server_error", code="server_error")


def _submit(model: ServedModel, asks: Sequence[Ask]) -> Ticket:
    try:
        return model.batcher.submit(asks)
    except QueueFullError as error:
        message = "The service is busy: as many answers wait as may. Try again later."
        raise ApiError(
            429, message, type="requests", code="rate_limit_exceeded", retry_after_s=error.retry_after_s
        ) from None


def _known(find: Callable[[str], ServedModel | None], name: str) -> ServedModel:
    model = find(name)
    if model is None:
        shown = name.encode("utf-8", "backslashreplace").decode()
        message = f"The model `{shown}` does not exist or you do not have access to it."
        raise ApiError(404, message, param="model", code="model_not_found")
    return model


def _model_object(model: ServedModel) -> dict[str, Any]:
    """As clients read it; `context_window` is ours."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at,
        "owned_by": "rlhf",
        "context_window": model.context,
    }


def _chat_ids(model: ServedModel, body: ChatRequest) -> Ids:
    turns = body.turns()
    try:
        return model.chat_ids(turns)
    except DataError as error:
        raise bad_request(error, "messages") from None


def _prompt_ids(model: ServedModel, body: CompletionRequest) -> list[Ids]:
    prompts = body.prompts()
    if not prompts:
        raise ApiError(400, "Invalid 'prompt': an empty list.", param="prompt")
    try:
        return [model.text_ids(each) if isinstance(each, str) else model.checked_ids(each) for each in prompts]
    except DataError as error:
        raise bad_request(error, "prompt") from None


def _asks(
    model: ServedModel, body: SamplingRequest, prompts: Sequence[Ids], limit: int, num_likeliest: int | None, param: str
) -> list[Ask]:
    """What is asked of the batcher, `n` answers a prompt; raises ApiError for what does not fit."""
    longest = max(map(len, prompts))
    if longest + limit > model.context or longest >= model.context:
        raise ApiError(
            400,
            f"This model's maximum context length is {model.context} tokens. However, you requested "
            f"{longest + limit} tokens ({longest} in the {param}, {limit} in the completion). "
            f"Please reduce the length of the {param} or completion.",
            param=param,
            code="context_length_exceeded",
        )
    if len(prompts) * body.num_choices > model.batcher.capacity:
        message = f"{len(prompts) * body.num_choices} answers in one request; at most {model.batcher.capacity}."
        raise ApiError(400, message, param="n" if body.num_choices > 1 else param)
    try:
        for stop in body.stops:
            check_encodable(stop)
    except DataError as error:
        raise bad_request(error, "stop") from None
    seed, decoding = body.stream_seed(), body.decoding
    return [
        Ask(ids, limit, decoding, seed, sample, body.stops, num_likeliest)
        for ids in prompts
        for sample in range(body.num_choices)
    ]
