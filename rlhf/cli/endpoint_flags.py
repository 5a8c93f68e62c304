"""Flags of every command that asks a chat endpoint, and the endpoint they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config.flags import add_flags, fill

if TYPE_CHECKING:
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.client import Endpoint


def add_endpoint_flags(command: argparse.ArgumentParser) -> None:
    """How an endpoint is asked and what it may cost; address and model are the command's own flags."""
    from rlhf.curate.endpoint.options import EndpointOptions

    add_flags(command.add_argument_group("endpoint", "any service with the OpenAI chat API"), EndpointOptions)


def budget_of(arguments: argparse.Namespace) -> Budget:
    """The limits and prices that were given, with nothing spent yet."""
    from rlhf.curate.endpoint.options import EndpointOptions

    return fill(EndpointOptions, arguments).budget()


def open_endpoint(url: str, model: str, arguments: argparse.Namespace, budget: Budget) -> Endpoint:
    """The endpoint; its cache is --cache, or OUT.answers.sqlite."""
    from rlhf.curate.endpoint.client import Endpoint
    from rlhf.curate.endpoint.options import EndpointOptions, answers_cache

    cache = answers_cache(Path(arguments.out))
    return Endpoint(url, model, fill(EndpointOptions, arguments), budget=budget, cache=cache)
