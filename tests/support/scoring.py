"""A service that scores answers over HTTP, in a thread of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Service:
    """Replies with `replies` in turn (status, body), then with each answer's length; keeps what it was asked, and the
    keys that were sent.

    `alive_for`, if set, is how many requests it replies to before it says 503 to all.
    """

    url: str = ""
    replies: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    alive_for: int | None = None

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        self.asked.append(body)
        if self.alive_for is not None and len(self.asked) > self.alive_for:
            return 503, b""
        scores = json.dumps({"scores": [len(answer) for answer in body["answers"]]}).encode()
        return self.replies.pop(0) if self.replies else (200, scores)


@contextmanager
def scoring_service() -> Iterator[Service]:
    """A service at a free port of this machine."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            service.keys += self.headers.get_all("Authorization", [])
            status, reply = service.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/score"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
