"""What the service refuses, in the JSON shape that clients of OpenAI's API read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

_KINDS = ("str", "int", "float", "bool", "list", "body", "query", "path")  # parts of a location that name no key


class RequestBody(BaseModel):
    """A body, or a part of one. An unknown key is refused: ignoring it would mislead the client."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ApiError(Exception):
    """An answer other than success.

    Args:
        status: the HTTP status.
        message: for a person.
        param: the parameter that was wrong.
        code: for a program, such as "invalid_api_key".
        retry_after_s: seconds until the same request could succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """The headers of the answer, besides the content type."""
        headers = {} if self.retry_after_s is None else {"retry-after": str(max(1, math.ceil(self.retry_after_s)))}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def refusal_body(status: int, message: str) -> dict[str, Any]:
    """What `RequestGuard` answers."""
    return ApiError(status, message, code="request_too_large" if status == 413 else None).body()


def add_error_handlers(app: FastAPI) -> None:
    """Answers every error of the application's routes, and of requests that reach none, in this shape."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, RequestValidationError):
            shaped = _invalid(error.errors())
        elif isinstance(error, HTTPException):
            shaped = _refused(request, error.status_code, str(error.detail))
        elif isinstance(error, ApiError):
            shaped = error
        else:
            message = "The service had an error while it worked on your request."
            shaped = ApiError(500, message, type="server_error", code="server_error")
        return JSONResponse(shaped.body(), shaped.status, headers=shaped.headers())

    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _invalid(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """The deepest problem of a body or a query, of every alternative where a choice of types has several as deep.

    The input is not repeated: it may be large, private or invalid Unicode.
    """
    depth = max(len(each["loc"]) for each in problems)
    deepest = [each for each in problems if len(each["loc"]) == depth]
    problem = deepest[0]
    if problem["type"] == "json_invalid":
        return ApiError(400, "We could not parse the JSON body of your request.")
    param = _param(problem["loc"])
    if problem["type"] == "model_attributes_type" and param is None:
        return ApiError(400, "Send a JSON object, with content-type application/json.")
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if problem["type"] == "missing":
        message = f"Missing required parameter: '{param}'." if param else "The request has no JSON body."
        return ApiError(400, message, param=param, code="missing_required_parameter")
    alternatives = [str(each["msg"]).removeprefix("Value error, ") for each in deepest if _param(each["loc"]) == param]
    text = "; or ".join(alternatives).encode("utf-8", "backslashreplace").decode()[:300]
    return ApiError(400, f"Invalid '{param}': {text}." if param else f"{text}.", param=param)


def _param(place: Iterable[Any]) -> str | None:
    """("body", "messages", 0, "content", "str") as messages[0].content."""
    found = ""
    for part in place:
        if isinstance(part, int):
            found += f"[{part}]"
        elif part not in _KINDS and re.fullmatch(r"\w+", part, re.ASCII):
            found += f".{part}" if found else part
    return found[:200] or None


def _refused(request: Request, status: int, detail: str) -> ApiError:
    """What the framework refuses: an unknown route, a method the route lacks, a body that cannot be read."""
    where = f"({request.method} {request.url.path})".encode("utf-8", "backslashreplace").decode()
    if status == HTTPStatus.NOT_FOUND:
        return ApiError(404, f"Invalid URL {where}", code="unknown_url")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return ApiError(405, f"Not allowed {where}", code="method_not_supported")
    return ApiError(status, detail)
