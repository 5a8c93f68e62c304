"""What may change between the start of a run and its resumption: one table of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Rule = Literal["free", "logged", "refused"]

DATA_PATH = "data.*.path"  # of a source of any list in `data`

# The first pattern that matches a key, or a group above it, decides; what none matches is logged.
RULES: tuple[tuple[str, Rule], ...] = (
    # where it is written, when it is saved, what is shown: no number changes
    ("run.dir", "free"),
    ("run.max_steps", "free"),
    ("run.memory_check", "free"),
    ("run.watchdog_minutes", "free"),
    ("checkpoint", "free"),
    ("log", "free"),
    # how the work is shared out: the same numbers up to rounding; the checkpoint is converted where it must be
    ("deepspeed", "free"),
    ("*.deepspeed", "free"),
    ("*.offload", "free"),
    # another order of rows, or other random streams: neither the old run nor a new one
    ("run.seed", "refused"),
    ("data.on_bad_row", "free"),
    # a file may move, whatever it is read for: its bytes are compared by their hash
    (DATA_PATH, "logged"),
    ("data", "refused"),
    # other weights than those the optimizer's state belongs to
    ("model.attention", "logged"),
    ("model.cudnn_attention", "logged"),
    ("model.head", "logged"),
    ("model.gradient_checkpointing", "free"),
    ("model", "refused"),
    ("actor.path", "refused"),
    ("reference.path", "refused"),
    ("critic.path", "refused"),
    ("reward.path", "refused"),
    ("ppo.roles", "refused"),
    ("ppo.estimator", "refused"),
    ("dpo.loss", "refused"),
    ("dpo.reference_from", "free"),
    ("dpo.kl_prompts", "free"),
    # another optimizer keeps another state
    ("*.optimizer", "refused"),
)


@dataclass(frozen=True, slots=True)
class ChangedKey:
    """A key with another value than the checkpoint's run had."""

    key: str
    old: Any
    new: Any
    rule: Rule

    @property
    def text(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def rule_of(key: str) -> Rule:
    """What a changed `key` means for a run that is resumed."""
    parts = key.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    for pattern, rule in RULES:
        if any(fnmatchcase(name, pattern) for name in names):
            return rule
    return "logged"


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[ChangedKey]:
    """Every key whose value differs, in the order of the configuration.

    A key that one of the two does not have is not compared: versions of this package differ in their keys.
    """
    return [ChangedKey(key, before, after, rule_of(key)) for key, before, after in _differences(old, new, "")]


def moved_data(old: dict[str, Any], new: dict[str, Any]) -> list[ChangedKey]:
    """The paths of data that differ: as changes of the configuration they pass, so their content has to be compared."""
    return [change for change in changes(old, new) if fnmatchcase(change.key, DATA_PATH)]


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in new:
            if name in old:
                yield from _differences(old[name], new[name], f"{key}.{name}" if key else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{key}.{number}")
    elif old != new:
        yield key, old, new


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "path" in item for item in value):
        return ", ".join(str(item["path"]) for item in value)
    return "null" if value is None else str(value) or '""'
