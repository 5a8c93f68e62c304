"""A push: all weights of the policy into the engine, bucket by bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rlhf.errors import EngineError
from rlhf.rollout.vllm.process import EngineProcess
from rlhf.rollout.vllm.transport import Transport, bucket_room
from rlhf.rollout.vllm.weights import WeightGroup, buckets, checkpoint_tensors, gathered, weight_groups


def push_weights(
    process: EngineProcess,
    model: Any,
    transport_of: Callable[[int], Transport],
    *,
    dtype: torch.dtype,
    bucket_bytes: int,
    failure: EngineError | None = None,
) -> EngineError | None:
    """Sends the weights of a Hugging Face model; at ZeRO 3 only one bucket is whole at a time.

    An engine's failure is returned, not raised: other ranks gather the same buckets, and this one must go on with them.
    With a `failure` from before nothing is sent.
    """
    width = torch.empty(0, dtype=dtype).element_size()
    parts = list(buckets(weight_groups(model), bucket_bytes // width))
    room = max(sum(bucket_room(group.count() * width, len(group.members)) for group in part) for part in parts)
    transport = transport_of(room)
    try:
        failure = failure or _opened(process, transport)
        for part in parts:
            with gathered(part):
                failure = failure or _send(process, model, part, transport, dtype)
        return failure or _attempt(lambda: process.request("finish_weights"))
    finally:
        transport.close()


def _opened(process: EngineProcess, transport: Transport) -> EngineError | None:
    failure = _attempt(lambda: process.send("begin_weights", transport=transport.describe()))
    failure = failure or _attempt(lambda: process.receive("done"))
    transport.opened()
    return failure


def _send(
    process: EngineProcess, model: Any, part: list[WeightGroup], transport: Transport, dtype: torch.dtype
) -> EngineError | None:
    tensors = {name: value for group in part for name, value in checkpoint_tensors(model, group, dtype).items()}
    bucket = transport.fill(tensors)

    def exchange() -> None:
        process.send("bucket", bucket=bucket)
        transport.sent()
        process.receive("done")

    return _attempt(exchange)


def _attempt(action: Callable[[], Any]) -> EngineError | None:
    try:
        action()
    except EngineError as error:
        return error
    return None
