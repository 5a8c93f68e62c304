"""`/v1/scores` for stage 3, and `/score` and `/classify` as vLLM answers them."""

import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends

from rlhf.data.encode import Ids
from rlhf.data.packing import Tree
from rlhf.data.records import Message
from rlhf.errors import DataError
from rlhf.models.scoring import rendered_tree
from rlhf.serve.access import ApiAccess, Caller
from rlhf.serve.chat.models import MAX_TEXT, check_encodable
from rlhf.serve.chat.requests import errors_name
from rlhf.serve.scores.models import Scorers, ServedScorer
from rlhf.serve.scores.requests import ClassifyRequest, ScoreRequest, ScoresRequest, TokenRows, as_turns, user_turn


def scores_router(scorers: Scorers, access: ApiAccess, *, count_tokens: Callable[[int], None]) -> APIRouter:
    """The routes.

    Args:
        count_tokens: called with the tokens of each request that is scored.
    """
    router = APIRouter()
    who = Annotated[Caller, Depends(access)]

    async def scored(
        model: ServedScorer, made: Callable[[], Iterable[Tree]], caller: Caller
    ) -> tuple[list[float], int]:
        """The scores of all answers in order, and the tokens read."""
        trees, found = await model.scores(made)
        tokens = sum(len(prompt) + sum(map(len, answers)) for prompt, answers in trees)
        count_tokens(tokens)
        access.spend(caller, tokens)
        return [score for each in found for score in each], tokens

    @router.post("/v1/scores")
    async def scores(body: ScoresRequest, caller: who, model: str | None = None) -> dict[str, Any]:
        served = scorers.get(body.model or model)
        found, _ = await scored(served, lambda: _trees(served, body), caller)
        return {"scores": found, "model": served.name}

    @router.post("/score")
    @router.post("/v1/score")
    async def score(body: ScoreRequest, caller: who) -> dict[str, Any]:
        served = scorers.get(body.model)
        found, tokens = await scored(served, lambda: _pairs(served, body), caller)
        data = [
            {"index": index, "object": "score", "score": _activated(value, body.activated)}
            for index, value in enumerate(found)
        ]
        return _listing("score", served, data, tokens)

    @router.post("/classify")
    @router.post("/v1/classify")
    async def classify(body: ClassifyRequest, caller: who) -> dict[str, Any]:
        served = scorers.get(body.model)
        found, tokens = await scored(served, lambda: _texts(served, body), caller)
        data = [
            {"index": index, "label": served.label, "probs": [_activated(value, body.activated)], "num_classes": 1}
            for index, value in enumerate(found)
        ]
        return _listing("classify", served, data, tokens)

    return router


def _trees(model: ServedScorer, body: ScoresRequest) -> Iterator[Tree]:
    """Prompts with their answers in order, neighbours with one prompt together: by ids where both sides have the same
    tokenizer, otherwise rendered from the text."""
    if body.tokens is not None and body.tokens.tokenizer == model.scorer.tokenizer.fingerprint():
        yield from _id_trees(model, body.tokens)
        return
    finished = body.finished or [True] * len(body.answers)
    rows = zip(body.conversations(), body.answers, finished, strict=True)
    for turns, group in groupby(rows, key=lambda row: row[0]):
        with errors_name("answers"):
            _, answers, ends = zip(*group, strict=True)
            yield _rendered(model, turns, answers, ends)


def _pairs(model: ServedScorer, body: ScoreRequest) -> Iterator[Tree]:
    """What `/score` scores: neighbours with one prompt together."""
    grouped = [
        (user_turn(prompt, "text_1"), [answer for _, answer in pairs])
        for prompt, pairs in groupby(body.pairs(), key=lambda pair: pair[0])
    ]
    with errors_name("text_2"):
        for turns, answers in grouped:
            yield _rendered(model, turns, answers, [True] * len(answers))


def _id_trees(model: ServedScorer, rows: TokenRows) -> Iterator[Tree]:
    for prompt, group in groupby(zip(rows.prompts, rows.answers, strict=True), key=lambda row: row[0]):
        with errors_name("tokens"):
            yield _ids(model, prompt), [_ids(model, answer) for _, answer in group]


def _texts(model: ServedScorer, body: ClassifyRequest) -> Iterator[Tree]:
    """What `/classify` scores: each text is an answer after its first token, since a tree has a prompt."""
    tokenizer = model.scorer.tokenizer
    if body.messages is not None:
        *before, answer = as_turns(body.messages, "messages")
        with errors_name("messages"):
            if answer.role != "assistant" or not before:
                raise DataError("the conversation does not end in an answer", expected="a last turn by assistant")
            yield _rendered(model, tuple(before), [answer.content], [True])
        return
    for number, text in enumerate(body.texts()):
        with errors_name(f"input[{number}]"):
            check_encodable(text)
            ids = np.asarray(tokenizer.token_ids([text])[0], np.int32)
            if len(ids) < 2:
                raise DataError(f"{len(ids)} token(s)", expected="a prompt and an answer, rendered by the template")
            yield ids[:1], [ids[1:]]


def _rendered(model: ServedScorer, turns: Sequence[Message], answers: Sequence[str], finished: Sequence[bool]) -> Tree:
    for answer in answers:
        check_encodable(answer)
    return rendered_tree(model.scorer.tokenizer, turns, answers, finished, MAX_TEXT)


def _ids(model: ServedScorer, ids: Sequence[int]) -> Ids:
    size = len(model.scorer.tokenizer.tokenizer)
    if not 0 <= min(ids) <= max(ids) < size:
        raise DataError("an id that is no token", expected=f"ids from 0 to {size - 1}")
    return np.asarray(ids, np.int32)


def _activated(score: float, activated: bool) -> float:
    """The score, or its sigmoid: the probability that the answer beats one of score 0."""
    if not activated:
        return score
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


def _listing(kind: str, model: ServedScorer, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    about = {"id": f"{kind}-{secrets.token_hex(16)}", "object": "list", "created": int(time.time())}
    return {**about, "model": model.name, "data": data, "usage": usage}
