"""`rlhf serve`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from rlhf.cli.job_flags import add_access_flags, add_job_flags, fine_tuning_of, kept_folder
from rlhf.cli.parser import Commands
from rlhf.errors import ConfigError, require_packages

_EXAMPLES = """examples:
  rlhf serve --model runs/ppo
  two models, named: rlhf serve --model runs/sft --model friendly=runs/ppo --port 8000
  compare two in the browser, and keep the votes for stage 2: rlhf serve ... --votes runs/votes.jsonl
  then: OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").chat.completions.create(model="ppo", ...)
  for other machines: rlhf keys add 민수, then rlhf serve --model runs/ppo --host 0.0.0.0
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    command = commands.add_parser(
        "serve",
        help="models behind an API that OpenAI's clients speak",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Chat, completions and models as OpenAI's API has them, with all requests in one decode loop,\n"
        "and a chat page at the same address.\n"
        "Only this machine may use it, unless there are API keys (`rlhf keys add`).",
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="run folder or model folder (safetensors); may be repeated (default name: the run's)",
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    command.add_argument(
        "--votes",
        metavar="FILE.jsonl",
        help="where the chat page's votes go, as rankings for stage 2; thumbs go into FILE.ratings.jsonl beside it "
        "(default: votes.jsonl in --jobs-dir; without that the page has no vote buttons)",
    )
    add_access_flags(command)
    _add_model_flags(command)
    _add_limits(command)
    add_job_flags(command)
    command.set_defaults(handler=run_serve)


def _add_model_flags(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("models")
    group.add_argument(
        "--max-batch",
        type=int,
        metavar="N",
        help="answers of a model written together (default: what half the free memory holds, at most 32)",
    )
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the weights; auto is bfloat16 on a GPU and float32 elsewhere (default: %(default)s)",
    )
    group.add_argument(
        "--template", metavar="NAME", help="chat template, preset or Jinja file, for a tokenizer without one"
    )
    group.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="longest chat answer where a request names none (default: all the model has room for)",
    )


def _add_limits(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("limits")
    group.add_argument(
        "--queue", type=int, default=128, metavar="N", help="answers that may wait; then 429 (default: %(default)s)"
    )
    group.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="seconds a request may take (default: %(default)s)"
    )
    group.add_argument(
        "--drain", type=float, default=60.0, metavar="S", help="seconds to finish after SIGTERM (default: %(default)s)"
    )
    group.add_argument(
        "--max-body", type=int, default=4 << 20, metavar="BYTES", help="largest request (default: %(default)s)"
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """`rlhf serve`."""
    for flag, least in (("port", 0), ("queue", 0), ("max_batch", 1), ("max_tokens", 1), ("timeout", 0), ("drain", 0)):
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise ConfigError(f"is {value}", where=f"--{flag.replace('_', '-')}", expected=f"at least {least}")
    if not arguments.model and not arguments.base:
        raise ConfigError("nothing to serve", where="--model", fix="rlhf serve --model runs/ppo")
    modules = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
    require_packages(*modules, extra="serve", needed_by="the service")
    from rlhf.serve.chat.completions import Limits
    from rlhf.serve.chat.models import ServingSettings, named_models
    from rlhf.serve.server import run_service

    models, folder = named_models(arguments.model), kept_folder(arguments)
    votes = Path(arguments.votes) if arguments.votes else folder and folder / "votes.jsonl"
    serving = ServingSettings(arguments.max_batch, arguments.queue, arguments.dtype, arguments.template)
    run_service(
        models,
        serving,
        Limits(arguments.timeout, arguments.max_tokens),
        host=arguments.host,
        port=arguments.port,
        keys=Path(arguments.keys),
        drain_s=arguments.drain,
        max_body_bytes=arguments.max_body,
        jobs=lambda add_model: fine_tuning_of(arguments, models, add_model),
        votes=votes,
    )
    _end_at_once()


def _end_at_once() -> NoReturn:
    """Everything has been answered and closed; taking loaded packages apart would only keep the operator waiting."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
