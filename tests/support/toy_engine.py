"""A rollout engine without vLLM: the real server's loop, wire and weight readers around a bigram model of one tensor.

Started as a process: `python tests/support/toy_engine.py --connect SOCKET --parent PID`, with TOY_ENGINE naming how it
misbehaves. Everything but the standard library, numpy and torch is refused, as it may be absent from an engine's
environment.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

MAIN = Path(__file__).parents[2] / "rlhf" / "rollout" / "server" / "main.py"
REFUSED = ("rlhf", "pydantic", "deepspeed", "transformers", "peft", "yaml", "safetensors", "datasets", "rich")


class Refusal(MetaPathFinder):
    """Makes packages absent."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{fullname} is not in the engine's environment", name=fullname)


def main() -> int:
    sys.meta_path.insert(0, Refusal())
    spec = importlib.util.spec_from_file_location("server_main", MAIN)
    server: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    parser = argparse.ArgumentParser()
    server.flags(parser)
    fault = os.environ.get("TOY_ENGINE", "")
    if fault == "never greets":
        time.sleep(600)
    channel = server.connect(parser.parse_args())
    from rollout_server import loop, wire

    if fault == "protocol":
        loop.PROTOCOL = wire.PROTOCOL + 1
    installed = {"python": "3.11.0", "torch": "2.13.0", "numpy": "2.0", "vllm": "0.32.0"}
    if fault == "version":
        installed["vllm"] = "0.12.0"
    loop.versions = lambda: installed
    return loop.serve(channel, lambda settings: ToyEngine(settings, fault))


class ToyEngine:
    """Logits of the next token are a row of `table`, which begins as zeros, or as the folder's table.npy where the
    engine reads the weights itself; a draw is the inverse CDF of the seed's uniform numbers. Settings and the numbers
    of answers per prompt are printed, so that they are in the log."""

    def __init__(self, settings: dict[str, Any], fault: str) -> None:
        import json

        import torch

        print("settings", json.dumps(settings), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
        if fault == "never starts":
            time.sleep(600)
        self._fault, self._vocabulary = (
            fault,
            json.loads((Path(settings["model"]) / "config.json").read_text())["vocab_size"],
        )
        self._table = torch.zeros(self._vocabulary, self._vocabulary)
        if settings.get("weights") == "folder" and fault != "withholds":
            import numpy as np

            self._table = torch.from_numpy(np.load(Path(settings["model"]) / "table.npy"))
        self._reader: Any = None
        self._streams: dict[str, Any] = {}
        self._steps = 0

    def facts(self) -> dict[str, Any]:
        return {"device": "cpu", "vocabulary": self._vocabulary + (self._fault == "vocabulary"), "sleeps": False}

    def generate(self, requests: list[Any], sampling: dict[str, Any]) -> list[Any]:
        from rollout_server.loop import Answer

        if self._fault == "hangs":
            time.sleep(600)
        if self._fault == "dies":
            print("out of memory, it says here", flush=True)
            os._exit(9)
        if self._fault == "raises":
            raise RuntimeError("the kernel is not there")
        print("answers", [request.number for request in requests], flush=True)
        return [
            Answer(*self._answer(request.prompt[-1], request.seed + k, sampling))
            for request in requests
            for k in range(request.number)
        ]

    def step(self, admitted: list[Any], cancelled: list[str]) -> list[dict[str, Any]]:
        """Answers are drawn whole and sent by one token a step; every third step sends two, or none."""
        import numpy as np

        if self._fault == "dies":
            os._exit(9)
        for request in admitted:
            settings = {**request.sampling, "max_new_tokens": request.sampling["max_tokens"]}
            tokens, _, _ = self._answer(request.prompt[-1], settings["seed"], settings)
            places = np.concatenate([request.prompt[-1:], tokens[:-1]]).astype(int)
            known = [self._table[place].log_softmax(-1) for place in places]
            count = settings["likeliest"]
            rows = [
                {"token": int(token), "likeliest": [float(each[token]), *_top(each, count or 0)]}
                for token, each in zip(tokens, known, strict=True)
            ]
            self._streams[request.name] = (rows, count is not None)
        for name in cancelled:
            print("cancelled", name, flush=True)
            del self._streams[name]
        self._steps += 1
        return [self._next(name) for name in list(self._streams)] if self._steps % 3 else []

    def _next(self, name: str) -> dict[str, Any]:
        rows, told = self._streams[name]
        sent, rows = rows[: 1 + (self._steps % 3 == 2)], rows[1 + (self._steps % 3 == 2) :]
        self._streams[name] = (rows, told)
        if not rows:
            del self._streams[name]
        grown = {"name": name, "tokens": [row["token"] for row in sent], "ended": not rows}
        return {**grown, "likeliest": [row["likeliest"] for row in sent]} if told else grown

    def _answer(self, token: int, seed: int, sampling: dict[str, Any]) -> tuple[Any, Any, bool]:
        import numpy as np

        draws = np.random.default_rng(seed).random(sampling["max_new_tokens"])
        tokens: list[int] = []
        logprobs = []
        for draw in draws:
            logits = self._table[token] / (sampling["temperature"] or 1)
            known = logits.log_softmax(-1)
            greedy = sampling["temperature"] == 0
            token = int(known.argmax()) if greedy else int((known.exp().cumsum(0) <= draw).sum())
            tokens.append(token)
            logprobs.append(float(known[token]))
            if token in sampling["eos"]:
                return np.asarray(tokens, np.int32), np.asarray(logprobs, np.float32), True
        return np.asarray(tokens, np.int32), np.asarray(logprobs, np.float32), False

    def score(self, rows: list[list[int]]) -> list[Any]:
        known = self._table.log_softmax(-1)
        return [known[row[:-1], row[1:]].numpy() for row in rows]

    def begin_weights(self, transport: dict[str, Any]) -> None:
        import torch
        from rollout_server.readers import open_reader

        print("transport", transport["kind"], transport["size"], transport["path"], flush=True)
        self._reader = open_reader(transport, torch.device("cpu"), 0)

    def load_bucket(self, bucket: dict[str, Any]) -> None:
        weights = self._reader.read(bucket)
        print("bucket", *[name for name, _ in weights], flush=True)
        for name, value in weights:
            if name == "table" and self._fault != "withholds":
                self._table = value.float() + (0.5 * (value == value.max()) if self._fault == "alters" else 0)

    def finish_weights(self) -> None:
        self._reader.close()

    def sleep(self) -> None: ...
    def wake(self, tags: list[str]) -> None: ...


def _top(known: Any, count: int) -> list[list[float]]:
    values, tokens = known.topk(count)
    return [[int(token), float(value)] for token, value in zip(tokens, values, strict=True)]


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
