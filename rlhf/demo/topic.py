"""Whether answers are about what the demo's prompts ask, for reports on any prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlhf.demo.world.rules import korean_rules


def topic_of(prompts: Sequence[str]) -> Callable[[str, str], bool] | None:
    """The rule of the demo's grammar; None where it does not know every prompt."""
    rules = korean_rules()
    return rules.on_topic if all(prompt in rules.asked for prompt in prompts) else None
