"""What a path can be that names no folder: an id on the Hugging Face hub, or a model that is still to be made."""

from __future__ import annotations

import re

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a path that does not exist can be an id on the hub, org/name; runs/name is a run that is not there."""
    return _HUB_ID.fullmatch(name) is not None and not name.startswith("runs/")


def how_to_make(path: str, otherwise: str) -> str:
    """What makes the model that a missing folder should hold, by its name; `otherwise` where that says nothing."""
    if "/base" in path:
        return f"make it: rlhf quickstart, or rlhf base tiny --data demo:answers_train --out {path}"
    if any(f"/{stage}" in path for stage in ("sft", "reward", "ppo", "dpo")):
        return "make it with `rlhf quickstart`, or name a finished run of your own"
    return otherwise
