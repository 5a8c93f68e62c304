"""Rewards from an HTTP service."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlhf.config.load import secret
from rlhf.config.reward_sources import RewardEndpoint
from rlhf.data.encode import Ids
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import ConfigError, TrainingError

TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers to be scored, an entry each: the last user turn, the answer's text, whether it ended in EOS, and the
    whole conversation as rows hold it. `ids` are those of prompt and answer, of `tokenizer`, where they are known."""

    prompts: list[str]
    answers: list[str]
    finished: list[bool]
    messages: list[list[dict[str, Any]]]
    ids: list[tuple[Ids, Ids]] | None = None
    tokenizer: ChatTokenizer | None = None


def ask_endpoint(endpoint: RewardEndpoint, key: str) -> Callable[[Asked], list[Any]]:
    """A function that scores answers by `endpoint`, `batch_size` per request.

    A request that does not reach the service, or for which it is not ready (429, 5xx), is retried after a pause that
    doubles each time; a refused request is not. `key` is the endpoint's place in the configuration.

    Raises: ConfigError where the variable of the key is not set; TrainingError, from the function, when the retries are
        used up or the reply has another form.
    """
    headers = {"Content-Type": "application/json; charset=utf-8"} | _authorization(endpoint, key)
    fingerprints: dict[int, str] = {}  # hashing a vocabulary takes a while, and a run has one tokenizer

    def ask(asked: Asked) -> list[Any]:
        fingerprint = ""
        if asked.tokenizer is not None and endpoint.send == "samples":
            known = id(asked.tokenizer)
            fingerprint = fingerprints.get(known) or fingerprints.setdefault(known, asked.tokenizer.fingerprint())
        scores: list[Any] = []
        for first in range(0, len(asked.answers), endpoint.batch_size):
            part = slice(first, first + endpoint.batch_size)
            scores += _scores(endpoint, _body(endpoint, asked, part, fingerprint), headers, key)
        return scores

    return ask


def _authorization(endpoint: RewardEndpoint, key: str) -> dict[str, str]:
    if not endpoint.api_key_env:
        return {}
    if token := secret(endpoint.api_key_env):
        return {"Authorization": f"Bearer {token}"}
    problem = f"the environment variable {endpoint.api_key_env} is not set"
    raise ConfigError(
        problem, where=f"{key}.api_key_env", fix=f"export {endpoint.api_key_env}=KEY where the run starts"
    )


def _body(endpoint: RewardEndpoint, asked: Asked, part: slice, fingerprint: str) -> dict[str, Any]:
    body: dict[str, Any] = {"prompts": asked.prompts[part], "answers": asked.answers[part]}
    if endpoint.send == "texts":
        return body
    body |= {"messages": asked.messages[part], "finished": asked.finished[part]}
    if asked.ids is not None:
        prompts, answers = zip(*((prompt.tolist(), answer.tolist()) for prompt, answer in asked.ids[part]), strict=True)
        body["tokens"] = {"tokenizer": fingerprint, "prompts": prompts, "answers": answers}
    return body


def _scores(endpoint: RewardEndpoint, body: dict[str, Any], headers: dict[str, str], key: str) -> list[Any]:
    reply = _posted(endpoint, json.dumps(body, ensure_ascii=False).encode(), headers, key)
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
    found: list[Any] = scores
    return found


def _posted(endpoint: RewardEndpoint, body: bytes, headers: dict[str, str], key: str) -> bytes:
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
            if isinstance(error, urllib.error.HTTPError):
                failure = f"{error}; it said {_shortened(error.read())}"
                if not _may_pass(error.code):
                    break
    raise TrainingError(
        f"{endpoint.url} gave no scores in {attempt + 1} attempts: {failure}",
        where=key,
        fix="start the service, or raise retries, backoff_s or timeout_s; for one that takes prompts and answers alone "
        "set send: texts; then use --resume auto",
    )


def _may_pass(status: int) -> bool:
    return status == TOO_MANY_REQUESTS or status >= SERVER_ERROR


def _shortened(reply: bytes) -> str:
    text = reply.decode("utf-8", errors="replace")
    return repr(text if len(text) <= 200 else text[:200] + "…")
