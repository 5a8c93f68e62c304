"""Parameter groups of an optimizer, by weight decay and learning rate."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from rlhf.config.sections import LrGroup
from rlhf.errors import ConfigError


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], weight_decay: float, lr_groups: Sequence[LrGroup] = ()
) -> list[dict[str, Any]]:
    """The trained ones of named parameters, grouped by weight decay and by `lr_scale`, their multiple of the learning
    rate.

    Matrices decay; biases, norms and other vectors do not. The first of `lr_groups` found in a parameter's name
    gives its scale; without one it is 1.

    Raises: ConfigError for a pattern that no trained parameter's name holds.
    """
    trained = {name: parameter for name, parameter in named if parameter.requires_grad}
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    scales = [group.scale for group in lr_groups] + [1.0]
    _require_matches(list(trained), lr_groups)
    for name, parameter in trained.items():
        found = (number for number, group in enumerate(lr_groups) if re.search(group.match, name))
        decays, number = len(getattr(parameter, "ds_shape", parameter.shape)) > 1, next(found, len(lr_groups))
        options = {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr_scale": scales[number]}
        groups.setdefault((not decays, number), options)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def _require_matches(names: Sequence[str], lr_groups: Sequence[LrGroup]) -> None:
    for number, group in enumerate(lr_groups):
        if not any(re.search(group.match, name) for name in names):
            near = difflib.get_close_matches(group.match, names, n=3, cutoff=0.0)
            raise ConfigError(
                f"{group.match!r} matches no trained parameter",
                where=f"lr_groups.{number}.match",
                expected=f"a regular expression for names such as {', '.join(near)}",
                fix="change the pattern, or drop the group",
            )
