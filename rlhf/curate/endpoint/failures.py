"""What a failed request means: whether to ask again, when, and whether it may be billed."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PASSING_STATUS = frozenset({408, 409, 425, 429})  # and 500 and above
LONGEST_WAIT_S = 600.0  # a service that wants longer than this is as good as gone
_FIXES = {
    401: "set the environment variable that holds the key (--api-key-env)",
    403: "use a key that may use this model",
    404: "check --model and --endpoint: the address ends in /v1, and /v1/models lists the models",
}


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One failed attempt.

    `passing` failures may go away when asked again; `billed` ones may have cost what an answer costs;
    `unreachable` is an address where nothing listens; `filtered` is a refusal by the service's content filter.
    """

    problem: str
    fix: str = ""
    passing: bool = False
    billed: bool = False
    unreachable: bool = False
    filtered: bool = False
    retry_after_s: float = 0.0


def failure_of(error: Exception) -> FailedAttempt:
    """What an exception of the client, or of reading its reply, means."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _failure_of_status(error.status_code, error.body, error.response.headers, error.message)
    if isinstance(error, (openai.APITimeoutError, TimeoutError)):
        fix = "raise --timeout, or lower --concurrency"
        return FailedAttempt("no answer in time", fix, passing=True, billed=True)
    if isinstance(error, openai.APIConnectionError):
        refused = type(error.__cause__).__name__ == "ConnectError"  # of whichever HTTP package the client uses
        problem = f"cannot be reached: {error.__cause__ or error}" if refused else "the connection broke off"
        return FailedAttempt(problem, "start the service, or check --endpoint", True, not refused, unreachable=refused)
    if isinstance(error, ValueError):
        fix = "check that --endpoint speaks the OpenAI chat completions API"
        return FailedAttempt(f"the reply is no chat completion: {error}", fix, passing=True, billed=True)
    return FailedAttempt(f"{type(error).__name__}: {error}")


def _failure_of_status(status: int, body: object, headers: Mapping[str, str], message: str) -> FailedAttempt:
    details: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    code, said = str(details.get("code") or ""), str(details.get("message") or message)
    problem = f"status {status}: {said[:300]}"
    if status == 400 and ("content_filter" in code or "content_policy" in code):
        return FailedAttempt(problem, filtered=True)
    if code == "insufficient_quota":
        return FailedAttempt(problem, "add credit to the account of the key, and run the command again")
    if status in PASSING_STATUS or status >= 500:
        wait_s = _retry_after_s(headers)
        if wait_s > LONGEST_WAIT_S:
            return FailedAttempt(f"{problem} (asks to wait {wait_s:.0f} s)", "run the command again later")
        return FailedAttempt(
            problem, "lower --concurrency or --requests-per-minute", passing=True, retry_after_s=wait_s
        )
    return FailedAttempt(problem, _FIXES.get(status, "correct the request: the service says what it does not take"))


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds the service asks to wait, as a number or a date; 0 where it does not say."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
