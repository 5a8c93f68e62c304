"""`rlhf data sample`: K answers per prompt from local models and from an endpoint."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.options import EndpointOptions, answers_cache
from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sampler import sample_answers
from rlhf.engine.ranks import workers


def run(options: SampleOptions, service: EndpointOptions) -> int:
    """Draws the answers on all ranks and writes the file on rank 0."""
    with ExitStack() as stack:
        ranks = stack.enter_context(workers(options.seed))
        endpoint = None
        if options.endpoint and ranks.is_main:
            cache = answers_cache(options.out)
            opened = Endpoint(options.endpoint, options.endpoint_model, service, cache=cache)
            endpoint = stack.enter_context(opened)
        summary = sample_answers(options, ranks, endpoint)
    if summary:
        sys.stderr.write(f"{summary}\n")
    return 0
