"""`/v1/models`, `/v1/chat/completions` and `/v1/completions`."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from rlhf.data.encode import Ids
from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.chat.batching import AnswerRequest, PendingAnswers, QueueFullError
from rlhf.serve.chat.models import Models, ServedModel, check_encodable
from rlhf.serve.chat.replies import ChatReply, CompletionReply, Reply
from rlhf.serve.chat.requests import (
    DEFAULT_COMPLETION_TOKENS,
    ChatRequest,
    CompletionRequest,
    SamplingRequest,
    errors_name,
)
from rlhf.serve.errors import ApiError

CLIENT_GONE = 499  # nobody reads it


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on requests.

    timeout_s: until a request is abandoned.
    chat_tokens: longest chat answer where a request sets no limit; None for all that fits the model's context.
    """

    timeout_s: float = 600.0
    chat_tokens: int | None = None


class Described(Protocol):
    """What a service says of a model, whatever it does."""

    @property
    def name(self) -> str: ...
    @property
    def created_at(self) -> int: ...
    @property
    def context(self) -> int: ...


def completions_router(
    models: Models,
    access: ApiAccess,
    limits: Limits,
    *,
    count_prompt: Callable[[int], None],
    scoring: Callable[[], Sequence[Described]] = lambda: (),
) -> APIRouter:
    """The routes.

    Args:
        count_prompt: called with the tokens of each prompt that is accepted.
        scoring: the reward models in service, which are listed but write no answers.
    """
    router = APIRouter()
    who = Annotated[Caller, Depends(access)]
    responder = Responder(access, limits.timeout_s, count_prompt)

    @router.get("/v1/models")
    def show_all(caller: who) -> dict[str, Any]:
        answering = [_model_object(model, "chat") for model in models.all()]
        return {"object": "list", "data": answering + [_model_object(model, "score") for model in scoring()]}

    @router.get("/v1/models/{name:path}")
    def show(name: str, caller: who) -> dict[str, Any]:
        found = next((model for model in scoring() if model.name == name), None)
        return _model_object(_known(models, name), "chat") if found is None else _model_object(found, "score")

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request, caller: who) -> Response:
        reply = await run_in_threadpool(_chat, _known(models, body.model), body, limits)
        return await responder.respond(request, caller, reply, stream=bool(body.stream))

    @router.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request, caller: who) -> Response:
        reply = await run_in_threadpool(_completion, _known(models, body.model), body)
        return await responder.respond(request, caller, reply, stream=bool(body.stream))

    return router


def _chat(model: ServedModel, body: ChatRequest, limits: Limits) -> Reply:
    """The reply to a chat, not generated yet."""
    turns = body.turns()
    with errors_name("messages"):
        ids = model.chat_ids(turns)
    given = body.max_completion_tokens or body.max_tokens
    limit = given or min(limits.chat_tokens or model.context, max(1, model.context - len(ids)))
    answers = _answers(model, body, [ids], limit, body.num_likeliest, "messages")
    return ChatReply(model=model, answers=answers, prompt_tokens=len(ids), include_usage=body.include_usage)


def _completion(model: ServedModel, body: CompletionRequest) -> Reply:
    """As `_chat`, for texts to continue."""
    prompts = body.prompts()
    if not prompts:
        raise ApiError(400, "Invalid 'prompt': an empty list.", param="prompt")
    with errors_name("prompt"):
        ids = [model.text_ids(each) if isinstance(each, str) else model.checked_ids(each) for each in prompts]
    limit = body.max_tokens or DEFAULT_COMPLETION_TOKENS
    answers = _answers(model, body, ids, limit, body.logprobs, "prompt")
    texts = [] if body.logprobs is None else [model.tokenizer.text(each.tolist()) for each in ids]
    return CompletionReply(
        model=model,
        answers=answers,
        prompt_tokens=sum(map(len, ids)),
        include_usage=body.include_usage,
        prompt_characters=[len(text) for text in texts for _ in range(body.num_choices)],
    )


def _answers(
    model: ServedModel, body: SamplingRequest, prompts: Sequence[Ids], limit: int, num_likeliest: int | None, param: str
) -> list[AnswerRequest]:
    """`n` answers per prompt; raises ApiError for what does not fit."""
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
    count = len(prompts) * body.num_choices
    if count > model.batcher.capacity:
        message = f"{count} answers in one request; at most {model.batcher.capacity}."
        raise ApiError(400, message, param="n" if body.num_choices > 1 else param)
    with errors_name("stop"):
        for stop in body.stops:
            check_encodable(stop)
    seed, decoding, samples = body.stream_seed(), body.decoding, range(body.num_choices)
    return [
        AnswerRequest(ids, limit, decoding, seed, sample, body.stops, num_likeliest)
        for ids in prompts
        for sample in samples
    ]


@dataclass(frozen=True, slots=True)
class Responder:
    """Fills replies, whole or as a stream, and charges the caller for the tokens however a reply ends.

    timeout_s: until a request is abandoned.
    count_prompt: called with the tokens of each prompt that is accepted.
    """

    access: ApiAccess
    timeout_s: float
    count_prompt: Callable[[int], None]

    async def respond(self, request: Request, caller: Caller, reply: Reply, *, stream: bool) -> Response:
        """Raises ApiError: a full queue, a request that took too long, a model that failed."""
        try:
            pending = reply.model.batcher.submit(reply.answers)
        except QueueFullError as error:
            message, wait_s = "The service is busy: its queue is full. Try again later.", error.retry_after_s
            code = "rate_limit_exceeded"
            raise ApiError(429, message, type="requests", code=code, retry_after_s=wait_s) from None
        self.count_prompt(reply.prompt_tokens)
        timer = pending.loop.call_later(self.timeout_s, pending.put, TimeoutError())

        def close() -> None:
            timer.cancel()
            pending.cancel()
            tokens = reply.prompt_tokens + reply.completion_tokens
            pending.loop.run_in_executor(None, self.access.spend, caller, tokens)

        if stream:
            return _Stream(_events(pending, reply), close)
        try:
            return await _whole(pending, reply, request)
        finally:
            close()


class _Stream(StreamingResponse):
    """Server-sent events. `close` is called however the stream ends, even if the client leaves before it begins."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


async def _events(pending: PendingAnswers, reply: Reply) -> AsyncIterator[str]:
    try:
        async for deltas in pending.deltas():
            yield "".join(_event(chunk) for delta in deltas for chunk in reply.chunks(delta))
        if reply.include_usage:
            yield _event(reply.last_chunk())
        yield "data: [DONE]\n\n"
    except Exception as error:  # noqa: BLE001  # the status has been sent: the error can only be an event
        yield _event(_failure(error).body())


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _whole(pending: PendingAnswers, reply: Reply, request: Request) -> Response:
    """The whole reply; abandoned as soon as the client has left."""

    async def collect() -> None:
        async for deltas in pending.deltas():
            for delta in deltas:
                reply.add(delta)

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
    if isinstance(error, TimeoutError):
        return ApiError(408, "The request took too long.", type="timeout", code="timeout")
    return ApiError(500, f"The model failed: {type(error).__name__}.", type="server_error", code="server_error")


def _known(models: Models, name: str) -> ServedModel:
    model = models.get(name)
    if model is None:
        shown = name.encode("utf-8", "backslashreplace").decode()
        message = f"The model `{shown}` does not exist or you do not have access to it."
        raise ApiError(404, message, param="model", code="model_not_found")
    return model


def _model_object(model: Described, task: str) -> dict[str, Any]:
    """As clients read it; `context_window` and `task`, chat or score, are additions of this service."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at,
        "owned_by": "rlhf",
        "context_window": model.context,
        "task": task,
    }
