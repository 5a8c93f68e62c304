"""Classifies failed requests: whether to retry, when, and whether the service may bill them."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})  # and 500 and above
LONGEST_WAIT_S = 600.0  # a service that asks for a longer wait counts as unavailable
_FIXES = {
    401: "set the environment variable that holds the key (--api-key-env)",
    403: "use a key that may use this model",
    404: "check --model and --endpoint: the address ends in /v1, and /v1/models lists the models",
}


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One failed attempt.

    `transient` failures may succeed on a retry; `billed` ones may have cost as much as an answer; `unreachable` is
    an address where nothing listens; `filtered` is a refusal by the content filter of the service.
    """

    problem: str
    fix: str = ""
    transient: bool = False
    billed: bool = False
    unreachable: bool = False
    filtered: bool = False
    retry_after_s: float = 0.0


def failure_of(error: Exception) -> FailedAttempt:
    """The failure behind an exception of the client, or of the parsing of its reply."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _failure_of_status(error.status_code, error.body, error.response.headers, error.message)
    if isinstance(error, (openai.APITimeoutError, TimeoutError)):
        fix = "raise --timeout, or lower --concurrency"
        return FailedAttempt("no answer in time", fix, transient=True, billed=True)
    if isinstance(error, openai.APIConnectionError):
        refused = type(error.__cause__).__name__ == "ConnectError"  # of whichever HTTP package the client uses
        problem = f"cannot be reached: {error.__cause__ or error}" if refused else "the connection broke off"
        return FailedAttempt(problem, "start the service, or check --endpoint", True, not refused, unreachable=refused)
    if isinstance(error, ValueError):
        fix = "check that --endpoint serves the OpenAI chat completions API"
        return FailedAttempt(f"the reply is not a chat completion: {error}", fix, transient=True, billed=True)
    return FailedAttempt(f"{type(error).__name__}: {error}")


def _failure_of_status(status: int, body: object, headers: Mapping[str, str], message: str) -> FailedAttempt:
    details: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    code, said = str(details.get("code") or ""), str(details.get("message") or message)
    problem = f"status {status}: {said[:300]}"
    if status == 400 and ("content_filter" in code or "content_policy" in code):
        return FailedAttempt(problem, filtered=True)
    if code == "insufficient_quota":
        return FailedAttempt(problem, "add credit to the account of the key, and run the command again")
    if status in TRANSIENT_STATUS or status >= 500:
        wait_s = _retry_after_s(headers)
        if wait_s > LONGEST_WAIT_S:
            return FailedAttempt(f"{problem} (asks to wait {wait_s:.0f} s)", "run the command again later")
        return FailedAttempt(
            problem, "lower --concurrency or --requests-per-minute", transient=True, retry_after_s=wait_s
        )
    return FailedAttempt(problem, _FIXES.get(status, "correct the request as the message says"))


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that the service asks to wait, given as a number or a date; 0 without such a header."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
