"""Flags of every command that asks a chat endpoint, and the endpoint they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.client import Endpoint

ENDPOINT = "chat endpoint, e.g. http://127.0.0.1:8000/v1"


def add_endpoint_flags(parser: argparse.ArgumentParser) -> None:
    """How an endpoint is asked and what it may cost; each command has flags of its own for address and model."""
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.options import EndpointOptions

    group = parser.add_argument_group("endpoint", "any service with the OpenAI chat completions API")
    add_flags(group, EndpointOptions)
    add_flags(group, Budget)


def budget_of(arguments: argparse.Namespace) -> Budget:
    """The limits and prices that were given, with nothing spent yet."""
    from rlhf.curate.endpoint.budget import Budget

    return fill(Budget, arguments)


def open_endpoint(
    url: str, model: str, arguments: argparse.Namespace, budget: Budget, cache: Path | None = None
) -> Endpoint:
    """The endpoint; answers are kept in --cache, else in `cache`, else in OUT.answers.sqlite."""
    from rlhf.curate.endpoint.options import EndpointOptions

    options = fill(EndpointOptions, arguments)
    return options.open(url, model, budget, cache or Path(f"{arguments.out}.answers.sqlite"))
