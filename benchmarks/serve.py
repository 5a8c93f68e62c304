"""Serving at 1, 8 and 32 concurrent streams, against one-by-one `transformers` generate and `transformers serve`.

Sides:
  rlhf           `rlhf serve`, streamed over HTTP to N concurrent clients
  transformers   `generate` of the same model in a process of its own, one request after another, no HTTP
  server         `transformers serve`, streamed over HTTP to 8 concurrent clients

All sides draw the same number of tokens a request from the same prompts, greedily, and never stop early: the model's
EOS is made impossible. Sides alternate; figures are medians over the rounds. `transformers serve` needs the packages of
transformers' `serving` extra (fastapi, uvicorn, pydantic, openai, rich), which the extras `serve` and `llm` install.

    python benchmarks/serve.py --out b6.json [--model FOLDER] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from harness import CONDITIONS, ROOT, free_port, say, write
from machine import watched

STREAMS = (1, 8, 32)
NEW_TOKENS = 64
TEXTS = (
    "오늘 면접을 망친 것 같아.",
    "비 오는 날 뭐 하면 좋을까?",
    "친구랑 다퉜는데 어떻게 화해하지?",
    "요즘 잠이 잘 안 와요.",
)
START_S = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--model", type=Path, help="model folder with a chat template (default: a tiny one, made here)")
    parser.add_argument("--data", type=Path, help="folder with sft_train.jsonl for the tiny model's tokenizer")
    parser.add_argument("--rounds", type=int, default=3, help="times each side runs (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="scratch folder (default: beside --out, removed at the end)")
    arguments = parser.parse_args()
    work = arguments.work or arguments.out.with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    folder = endless(arguments.model or tiny_model(arguments.data, work), work / "served")
    rounds = [one_round(folder, work, number) for number in range(arguments.rounds)]
    write(arguments.out, summary(rounds, folder))
    if arguments.work is None:
        shutil.rmtree(work)


def tiny_model(data: Path | None, work: Path) -> Path:
    """4 layers of 256, a vocabulary of 8,000 at most; trained for an instant."""
    from material import TEMPLATE, TINY

    from rlhf.data.tokenizer import load_tokenizer
    from rlhf.demo.tiny_base import make_tiny_base

    folder = work / "tiny"
    shutil.rmtree(folder, ignore_errors=True)
    make_tiny_base([str(data / "sft_train.jsonl") if data else "demo:handwritten_train"], folder, size=TINY, seed=17)
    load_tokenizer(str(folder), TEMPLATE).save(folder)
    return folder


def endless(model: Path, folder: Path) -> Path:
    """A copy whose EOS is never drawn: greedy answers of any length on every side."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        loaded.get_output_embeddings().weight[tokenizer.eos_token_id] = 0
    loaded.generation_config.suppress_tokens = None
    loaded.generation_config.do_sample = False
    loaded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def one_round(folder: Path, work: Path, number: int) -> dict[str, Any]:
    """Every side once, in an order that turns."""
    log = work / "log.txt"
    sides = {
        "rlhf": lambda: measured_server(ours(folder), folder.name, STREAMS, log),
        "transformers": lambda: one_by_one(folder, log),
        "server": lambda: measured_server(theirs(folder), str(folder), (8,), log),
    }
    names = list(sides)
    found = {name: watched(sides[name]) for name in [*names[number % 3 :], *names[: number % 3]]}
    speeds = {name: {key: round(value, 1) for key, value in side["speed"].items()} for name, side in found.items()}
    say(f"round {number + 1}: tokens/s {speeds}")
    return found


def ours(folder: Path) -> tuple[list[str], int]:
    port = free_port()
    words = [sys.executable, "-m", "rlhf", "serve", "--model", str(folder), "--port", str(port)]
    return [*words, "--max-batch", "32", "--dtype", "float32", "--no-jobs"], port


def theirs(folder: Path) -> tuple[list[str], int]:
    port = free_port()
    command = str(Path(sys.executable).with_name("transformers"))
    return [command, "serve", str(folder), "--port", str(port), "--device", "cpu", "--dtype", "float32"], port


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[str]:
    """The server's address while it runs."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=os.environ | CONDITIONS, cwd=ROOT, stdout=file, stderr=file)
    try:
        wait_until_up(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        process.terminate()
        process.wait(60)


def wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with status {process.returncode}; see {log}")
        try:
            if httpx.get(url, timeout=5).status_code < 500:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"a server did not start in {START_S} s; see {log}")


def measured_server(server: tuple[list[str], int], model: str, streams: tuple[int, ...], log: Path) -> dict[str, Any]:
    """Tokens a second, first-token times and errors at each number of streams."""
    speed, first, errors = {}, {}, 0
    with running(*server, log) as url:
        asyncio.run(load(url, model, 1))  # the first request of a process is slower
        for count in streams:
            started = time.perf_counter()
            results = asyncio.run(load(url, model, count))
            seconds = time.perf_counter() - started
            good = [each for each in results if each is not None]
            errors += len(results) - len(good)
            speed[str(count)] = len(good) * NEW_TOKENS / seconds
            first[str(count)] = good or [math.nan]
    return {"speed": speed, "first": first, "errors": errors}


async def load(url: str, model: str, count: int) -> list[float | None]:
    """`count` streams at once: seconds to the first text of each, None for one that failed."""
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        return await asyncio.gather(*(stream(client, url, model, number) for number in range(count)))


async def stream(client: httpx.AsyncClient, url: str, model: str, number: int) -> float | None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"{TEXTS[number % len(TEXTS)]} {number}"}],
        "max_tokens": NEW_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    started, first, ended = time.perf_counter(), None, False
    try:
        async with client.stream("POST", url, json=body) as reply:
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                choices = json.loads(line[6:]).get("choices") or [{}]
                if first is None and choices[0].get("delta", {}).get("content"):
                    first = time.perf_counter() - started
                ended = ended or choices[0].get("finish_reason") == "length"
    except httpx.HTTPError:
        return None
    return first if ended else None


def one_by_one(folder: Path, log: Path) -> dict[str, Any]:
    """`generate` in a process of its own."""
    command = [
        sys.executable,
        str(Path(__file__).parent / "sides" / "generate.py"),
        str(folder),
        str(NEW_TOKENS),
        *TEXTS,
    ]
    with log.open("ab") as file:
        out = subprocess.check_output(command, env=os.environ | CONDITIONS, cwd=ROOT, stderr=file, text=True)
    return {"speed": {"1": float(out.split()[-1])}}


def summary(rounds: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    def ratio(streams: int, side: str, theirs: str) -> float:
        return statistics.median(each["rlhf"]["speed"][str(streams)] / each[side]["speed"][theirs] for each in rounds)

    first = {
        str(count): sorted(seconds for each in rounds for seconds in each["rlhf"]["first"][str(count)])
        for count in STREAMS
    }
    ratios = {f"tokens_ratio_{count}": ratio(count, "transformers", "1") for count in STREAMS}
    return {
        **ratios,
        "over_transformers_serve_8": ratio(8, "server", "8"),
        "first_token_p50_s": statistics.median(first["8"]),
        "first_token_p95_s": quantile(first["8"], 0.95),
        "errors": sum(each["rlhf"]["errors"] for each in rounds),
        "errors_transformers_serve": sum(each["server"]["errors"] for each in rounds),
        "first_token_s": {
            count: {"p50": statistics.median(values), "p95": quantile(values, 0.95)} for count, values in first.items()
        },
        "rounds": [
            {name: {**side["speed"], "machine": side["machine"]} for name, side in each.items()} for each in rounds
        ],
        "conditions": {"new_tokens": NEW_TOKENS, "model": folder.name, "load_average": os.getloadavg()},
    }


def quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


if __name__ == "__main__":
    main()
