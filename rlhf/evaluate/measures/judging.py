"""A judge model on the labelled answers, compared with the same labels as the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.messages import EndpointRequest
from rlhf.evaluate.measures.agreement import agreement, kappa
from rlhf.evaluate.measures.labelled import Labelled
from rlhf.evaluate.safety.reactions import REACTIONS
from rlhf.html.templates import render

UNREADABLE = "unreadable"
MAX_TOKENS = 512  # a model may think before it names the label
_LABEL = re.compile(r"(?<![a-z_])(?:" + "|".join(REACTIONS) + r")(?![a-z_])")


def judge_reactions(rows: Sequence[Labelled], judges: Mapping[str, Callable[[], Endpoint]]) -> dict[str, Any]:
    """Each judge's agreement with the labels and kappa, and how many of its replies name no label.

    Raises: EndpointError, BudgetError from the judges.
    """
    found = {}
    for name, opened in judges.items():
        with opened() as endpoint:
            labels = [label_in(reply.text) for reply in endpoint.complete_all(map(request, rows))]
        pairs = [(row.label, label) for row, label in zip(rows, labels, strict=True)]
        found[name] = {**agreement(pairs), "kappa": kappa(pairs), UNREADABLE: labels.count(UNREADABLE)}
    return found


def request(row: Labelled) -> EndpointRequest:
    """What a judge is asked about one answer."""
    assert row.prompt is not None
    text = render("evaluate/measures/judge.txt.j2", prompt=row.prompt.text, answer=row.text)
    return EndpointRequest([{"role": "user", "content": text}], temperature=0.0, max_tokens=MAX_TOKENS)


def label_in(reply: str) -> str:
    """The last label that a reply names, since a model may discuss others before it decides."""
    named = _LABEL.findall(reply.lower())
    return named[-1] if named else UNREADABLE
