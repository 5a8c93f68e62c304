"""`rlhf serve`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from rlhf.cli.answer_flags import add_engine_flags, rollout_of
from rlhf.cli.job_flags import add_job_flags, fine_tuning_of, job_options_of
from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill
from rlhf.errors import ConfigError, require_packages


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.serve.options import ServeOptions, ServingSettings

    folder = "run folder or model folder (safetensors); may be repeated (default name: the run's)"
    parser.add_argument("--model", action="append", default=[], metavar="[NAME=]FOLDER", help=folder)
    add_flags(parser, ServeOptions, only=("host", "port", "votes", "keys"))
    models = parser.add_argument_group("models")
    add_flags(models, ServingSettings, skip=("queue",))
    add_flags(models, ServeOptions, only=("chat_tokens",))
    limits = parser.add_argument_group("limits")
    add_flags(limits, ServingSettings, only=("queue",))
    add_flags(limits, ServeOptions, only=("timeout_s", "drain_s", "max_body_bytes"))
    add_engine_flags(parser)
    add_job_flags(parser)


def run_serve(arguments: argparse.Namespace) -> int:
    """`rlhf serve`."""
    from rlhf.serve.options import ServeOptions, ServingSettings

    serving = fill(ServingSettings, arguments, rollout=rollout_of(arguments))
    options = fill(ServeOptions, arguments, models={}, serving=serving)
    if not arguments.model and not arguments.base:
        raise ConfigError("nothing to serve", where="--model", fix="rlhf serve --model runs/ppo")
    from dataclasses import replace

    modules = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
    require_packages(*modules, extra="serve", needed_by="the service")
    from rlhf.serve.chat.models import named_models
    from rlhf.serve.server import run_service

    models, folder = named_models(arguments.model), job_options_of(arguments).folder(options.host)
    run_service(
        replace(
            options,
            models=models,
            jobs=lambda add_model: fine_tuning_of(arguments, models, add_model),
            votes=options.votes or (folder and folder / "votes.jsonl"),
        )
    )
    _end_at_once()


def _end_at_once() -> NoReturn:
    """Everything has been answered and closed; taking loaded packages apart would only keep the operator waiting."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


COMMAND = Command(
    "serve",
    "models behind an API that OpenAI's clients use",
    run_serve,
    _flags,
    description="Chat, completions and models as OpenAI's API has them, with all requests in one decode loop, and a "
    "chat page at the same address.\n"
    "Only this machine may use it, unless there are API keys (`rlhf keys add`).",
    epilog="examples:\n"
    "  rlhf serve --model runs/ppo\n"
    "  two models, named: rlhf serve --model runs/sft --model friendly=runs/ppo --port 8000\n"
    "  compare two in the browser, and keep the votes for stage 2: rlhf serve ... --votes runs/votes.jsonl\n"
    '  then: OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").chat.completions.create(model="ppo", ...)\n'
    "  decoded by vLLM: rlhf serve --model runs/ppo --backend vllm --vllm-python ENV/bin/python\n"
    "  for other machines: rlhf keys add 민수, then rlhf serve --model runs/ppo --host 0.0.0.0",
)
