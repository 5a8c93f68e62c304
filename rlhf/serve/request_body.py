"""The base of every JSON body that clients send."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestBody(BaseModel):
    """A body, or a part of one. An unknown key is refused: ignoring it would mislead the client."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
