"""Flags of every command that asks a chat endpoint, and the endpoint they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhf.curate.endpoint.budget import Budget
    from rlhf.curate.endpoint.client import Endpoint


def add_endpoint_flags(command: argparse.ArgumentParser) -> None:
    """How an endpoint is asked and what it may cost; address and model are the command's own flags."""
    group = command.add_argument_group("endpoint", "any service that speaks the OpenAI chat completions API")
    group.add_argument(
        "--api-key-env",
        default="OPENAI_API_KEY",
        metavar="VARIABLE",
        help="environment variable that holds the key; not needed on this machine (default: %(default)s)",
    )
    group.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="requests at once (default: %(default)s)"
    )
    group.add_argument("--requests-per-minute", type=float, metavar="N", help="requests sent a minute at most")
    group.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds an answer may take (default: %(default)s)"
    )
    group.add_argument(
        "--retries",
        type=int,
        default=5,
        metavar="N",
        help="further attempts at a request that failed in passing (default: %(default)s)",
    )
    group.add_argument("--max-requests", type=int, metavar="N", help="stop before more requests than this")
    group.add_argument("--max-cost", type=float, metavar="COST", help="stop before spending more; needs the prices")
    group.add_argument(
        "--price-in", type=float, default=0.0, metavar="PRICE", help="of 1,000 prompt tokens (default: %(default)s)"
    )
    group.add_argument(
        "--price-out", type=float, default=0.0, metavar="PRICE", help="of 1,000 answer tokens (default: %(default)s)"
    )
    group.add_argument(
        "--cache",
        metavar="FILE",
        help="answers paid for so far; the same command again goes on from them (default: OUT.answers.sqlite)",
    )


def budget_of(arguments: argparse.Namespace) -> Budget:
    """The limits and prices that were given, with nothing spent yet."""
    from rlhf.curate.endpoint.budget import Budget

    return Budget(arguments.max_requests, arguments.max_cost, arguments.price_in, arguments.price_out)


def open_endpoint(url: str, model: str, arguments: argparse.Namespace, budget: Budget) -> Endpoint:
    """The endpoint; its cache is --cache, or OUT.answers.sqlite."""
    from rlhf.curate.endpoint.client import Endpoint

    return Endpoint(
        url,
        model,
        api_key=arguments.api_key_env,
        concurrency=arguments.concurrency,
        requests_per_minute=arguments.requests_per_minute,
        timeout_s=arguments.timeout,
        retries=arguments.retries,
        budget=budget,
        cache=Path(arguments.cache or f"{arguments.out}.answers.sqlite"),
    )
