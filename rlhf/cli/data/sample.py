"""`rlhf data sample`."""

from __future__ import annotations

import argparse

from rlhf.cli.answer_flags import add_sampling_flags, rollout_of
from rlhf.cli.endpoint_flags import add_endpoint_flags
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill, fill_section


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.sample.options import SampleOptions

    add_flags(parser, SampleOptions)
    add_sampling_flags(parser)
    add_endpoint_flags(parser)


def run_sample(arguments: argparse.Namespace) -> int:
    """`rlhf data sample`."""
    from rlhf.config.sections import SamplingSection
    from rlhf.curate.endpoint.options import EndpointOptions
    from rlhf.curate.sample.command import run
    from rlhf.curate.sample.options import SampleOptions

    sampling = fill_section(SamplingSection, arguments)
    options = fill(SampleOptions, arguments, sampling=sampling, rollout=rollout_of(arguments))
    return run(options, fill(EndpointOptions, arguments))


COMMAND = Command(
    "sample",
    "K answers per prompt from our models and from endpoints",
    run_sample,
    _flags,
    description="K answers per prompt from each model, with the model's hash and its decoding settings beside each "
    "answer. Finished answers are kept in OUT.partial, a few hundred at a time: an interrupted run continues from "
    "there when it is started again with the same settings.",
    epilog="examples:\n"
    "  rlhf data sample --model runs/sft --prompts prompts.jsonl --k 4 --out sampled.jsonl\n"
    "  two generators: ... --model runs/sft --model runs/ppo --k 2\n"
    "  with an endpoint: ... --endpoint https://api.openai.com/v1 --endpoint-model gpt-4o-mini\n"
    "  by vLLM: ... --backend vllm --vllm-python ENV/bin/python\n"
    "  on two devices: deepspeed --num_accelerators 2 --module rlhf data sample ...\n"
    "then: rlhf data judge --in sampled.jsonl ..., or rlhf data label --in sampled.jsonl ...",
    files=("prompts",),
)
