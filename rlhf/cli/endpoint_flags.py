"""Flags of every command that asks a chat endpoint."""

from __future__ import annotations

import argparse

from rlhf.config.flags import add_flags


def add_endpoint_flags(parser: argparse.ArgumentParser) -> None:
    """How an endpoint is used and what it may cost; each command has flags of its own for address and model."""
    from rlhf.curate.endpoint.options import EndpointOptions

    add_flags(parser.add_argument_group("endpoint", "any service with the OpenAI chat API"), EndpointOptions)
