"""Rewards from an HTTP service."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from rlhf.config.reward_sources import RewardEndpoint
from rlhf.errors import TrainingError

TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


def ask_endpoint(endpoint: RewardEndpoint, key: str) -> Callable[[list[str], list[str], list[bool]], list[float]]:
    """A function that scores answers by `endpoint`, `batch_size` per request.

    A request that does not reach the service, or for which it is not ready (429, 5xx), is retried after a pause that
    doubles each time; a refused request is not. `key` is the endpoint's place in the configuration.

    Raises: TrainingError, from the function, when the retries are used up or the reply has another form.
    """

    def ask(prompts: list[str], answers: list[str], finished: list[bool]) -> list[float]:
        scores: list[float] = []
        for first in range(0, len(answers), endpoint.batch_size):
            part = slice(first, first + endpoint.batch_size)
            scores += _scores(endpoint, {"prompts": prompts[part], "answers": answers[part]}, key)
        return scores

    return ask


def _scores(endpoint: RewardEndpoint, body: dict[str, list[str]], key: str) -> list[float]:
    reply = _posted(endpoint, json.dumps(body, ensure_ascii=False).encode(), key)
    try:
        scores = json.loads(reply)["scores"]
        valid = isinstance(scores, list) and len(scores) == len(body["answers"])
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise TrainingError(
            f"{endpoint.url} replied {_shortened(reply)}",
            where=key,
            expected=f'{{"scores": [{len(body["answers"])} numbers]}}',
            fix="correct the service, then use --resume auto",
        )
    return [float(score) for score in scores]


def _posted(endpoint: RewardEndpoint, body: bytes, key: str) -> bytes:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    request = urllib.request.Request(endpoint.url, data=body, headers=headers, method="POST")
    for attempt in range(endpoint.retries + 1):
        if attempt:
            time.sleep(endpoint.backoff_s * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(request, timeout=endpoint.timeout_s) as response:
                reply: bytes = response.read()
                return reply
        except (OSError, http.client.HTTPException) as error:
            failure: Any = error
            if isinstance(error, urllib.error.HTTPError) and not _may_pass(error.code):
                break
    raise TrainingError(
        f"{endpoint.url} gave no scores in {attempt + 1} attempts: {failure}",
        where=key,
        fix="start the service, or raise retries, backoff_s or timeout_s; then use --resume auto",
    )


def _may_pass(status: int) -> bool:
    return status == TOO_MANY_REQUESTS or status >= SERVER_ERROR


def _shortened(reply: bytes) -> str:
    text = reply.decode("utf-8", errors="replace")
    return repr(text if len(text) <= 200 else text[:200] + "…")
