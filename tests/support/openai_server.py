"""A service that speaks the OpenAI chat completions API on this machine, with scripted answers and faults.

    python tests/support/openai_server.py --port 8177 --faults 429:0.1,500:0.05 --delay 0.2
    with serve(Behaviour(faults={0: Fault("429", retry_after="1")})) as server:  # server.url, server.requests

Answers depend on nothing but the request: forms of a judge are filled in with scores taken from a hash of each answer,
requests for JSON get JSON with the keys asked for, and everything else a friendly Korean sentence.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.scripted_answers import digest, logprobs_of, scripted

REFUSAL = "죄송하지만 그 요청은 도와드릴 수 없습니다."


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request: 429, 500, 400, 401, 404, quota, filter, slow, cut, malformed, refusal, empty."""

    kind: str
    retry_after: str = ""


@dataclass
class Behaviour:
    """How the service behaves. `faults` go by the number of the request, from 0, or are chosen by a function."""

    faults: Mapping[int, Fault] | Callable[[int, dict[str, Any]], Fault | None] = field(default_factory=dict)
    delay_s: float = 0.0
    slow_s: float = 30.0
    key: str = ""  # 401 for every other one
    answer: Callable[[dict[str, Any]], str] | None = None
    models: tuple[str, ...] = ("m",)
    usage: bool = True


@dataclass
class Server:
    """A running service: its address, and the requests it saw with when they came (seconds, monotonic)."""

    url: str
    behaviour: Behaviour
    requests: list[dict[str, Any]] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def fault(self, number: int, body: dict[str, Any]) -> Fault | None:
        faults = self.behaviour.faults
        return faults(number, body) if callable(faults) else faults.get(number)


def completion(server: Server, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
    """The body of a successful reply."""
    choices = []
    for index in range(body.get("n") or 1):
        varied = body if index == 0 else body | {"seed": [body.get("seed"), index]}
        text = (server.behaviour.answer or scripted)(varied)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if fault is not None and fault.kind == "refusal":
            message = {"role": "assistant", "content": REFUSAL}
        if fault is not None and fault.kind == "empty":
            message = {"role": "assistant", "content": None}
        logprobs = logprobs_of(text, body.get("top_logprobs") or 0) if body.get("logprobs") else None
        choices.append({"index": index, "message": message, "finish_reason": "stop", "logprobs": logprobs})
    prompt = sum(len(message["content"]) for message in body["messages"])  # a token a character
    answer = sum(len(choice["message"]["content"] or "") for choice in choices)
    reply = {
        "id": f"chatcmpl-{digest(json.dumps(body)):x}",
        "object": "chat.completion",
        "created": 1700000000,
        "model": body["model"],
        "choices": choices,
    }
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return reply | ({"usage": usage} if server.behaviour.usage else {})


_ERRORS = {
    "429": (429, "rate_limit_exceeded", "Rate limit reached"),
    "500": (500, "server_error", "The server had an error"),
    "400": (400, "invalid_value", "Invalid value for 'messages'"),
    "401": (401, "invalid_api_key", "Incorrect API key provided"),
    "404": (404, "model_not_found", "The model does not exist"),
    "quota": (429, "insufficient_quota", "You exceeded your current quota"),
    "filter": (400, "content_filter", "The prompt was filtered"),
    "limit-name": (400, "unsupported_parameter", "Use 'max_completion_tokens' instead of 'max_tokens'"),
}


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    """The class that handles a connection of this service."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: else each reply waits for a delayed acknowledgement

        def do_GET(self) -> None:
            if self.path.rstrip("/") != "/v1/models":
                return self.fail(404, "not_found", f"no {self.path}")
            models = [{"id": name, "object": "model", "owned_by": "tests"} for name in server.behaviour.models]
            return self.reply(200, json.dumps({"object": "list", "data": models}).encode())

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.rstrip("/") != "/v1/chat/completions":
                return self.fail(404, "not_found", f"no {self.path}")
            body = json.loads(raw)
            with server.lock:
                number = len(server.requests)
                server.requests.append(body)
                server.arrived.append(time.monotonic())
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                self.serve(body, server.fault(number, body))
            except OSError:
                self.close_connection = True
            finally:
                with server.lock:
                    server.at_once -= 1
            return None

        def serve(self, body: dict[str, Any], fault: Fault | None) -> None:
            key = server.behaviour.key
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                fault = Fault("401")
            if body["model"] not in server.behaviour.models:
                fault = Fault("404")
            server.closing.wait(server.behaviour.slow_s if fault and fault.kind == "slow" else server.behaviour.delay_s)
            if fault is not None and fault.kind in _ERRORS:
                return self.fail(*_ERRORS[fault.kind], fault.retry_after)
            reply = completion(server, body, fault)
            if body.get("stream"):
                return self.stream(reply)
            text = json.dumps(reply, ensure_ascii=False).encode()
            if fault is not None and fault.kind == "malformed":
                text = text[: len(text) // 2]
            return self.reply(200, text, cut=fault is not None and fault.kind == "cut")

        def fail(self, status: int, code: str, message: str, retry_after: str = "") -> None:
            error = {"message": message, "type": "error", "param": None, "code": code}
            self.reply(status, json.dumps({"error": error}).encode(), retry_after=retry_after)

        def reply(self, status: int, body: bytes, *, retry_after: str = "", cut: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        def stream(self, reply: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for choice in reply["choices"]:
                for piece in re.findall(r"\s*\S+", choice["message"]["content"] or ""):
                    self.event(reply, choice["index"], {"role": "assistant", "content": piece}, None)
                self.event(reply, choice["index"], {}, choice["finish_reason"])
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def event(self, reply: dict[str, Any], index: int, delta: dict[str, str], reason: str | None) -> None:
            choice = {"index": index, "delta": delta, "finish_reason": reason}
            head = {key: reply[key] for key in ("id", "created", "model")}
            chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, *_: Any) -> None: ...

    return Handler


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that go away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def listen(behaviour: Behaviour, port: int) -> tuple[Server, _Listener]:
    """A service that is bound to a port (0: a free one) and not yet serving."""
    server = Server("", behaviour)
    listener = _Listener(("127.0.0.1", port), handler(server))
    server.url = f"http://127.0.0.1:{listener.server_port}/v1"
    return server, listener


@contextmanager
def serve(behaviour: Behaviour | None = None, port: int = 0) -> Iterator[Server]:
    """A running service, until the block ends."""
    server, listener = listen(behaviour or Behaviour(), port)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        listener.shutdown()
        listener.server_close()


def _sometimes(shares: str) -> Callable[[int, dict[str, Any]], Fault | None]:
    chances = [(kind, float(share)) for kind, share in (part.split(":") for part in shares.split(",") if part)]

    def fault(number: int, _: dict[str, Any]) -> Fault | None:
        left = digest(f"fault {number}") % 10_000 / 10_000
        for kind, share in chances:
            left -= share
            if left < 0:
                return Fault(kind, retry_after="1" if kind == "429" else "")
        return None

    return fault


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8177)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--faults", default="", help="shares of requests that fail, e.g. 429:0.1,cut:0.05")
    parser.add_argument("--key", default="", help="refuse every other key")
    parser.add_argument("--models", default="m", help="names of the models, with commas")
    arguments = parser.parse_args()
    behaviour = Behaviour(
        _sometimes(arguments.faults), arguments.delay, key=arguments.key, models=tuple(arguments.models.split(","))
    )
    server, listener = listen(behaviour, arguments.port)
    print(f"serving {', '.join(behaviour.models)} at {server.url}", flush=True)
    try:
        listener.serve_forever()
    except KeyboardInterrupt:
        print(f"{len(server.requests)} requests", flush=True)


if __name__ == "__main__":
    main()
