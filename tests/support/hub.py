"""A hub on this machine: it keeps the files of commits in memory, can refuse, and speaks what `rlhf push` asks for."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_of-a-test"


@dataclass
class ScriptedHub:
    """refuse: (method, path pattern) to (status, message); lost: files that a commit does not keep."""

    address: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return self.repos[repo]["branches"][revision]


class _Handler(BaseHTTPRequestHandler):
    hub: ScriptedHub

    def log_message(self, format: str, *values: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{method} {path}")
        for (refused, pattern), (status, message) in self.hub.refuse.items():
            if refused == method and re.fullmatch(pattern, path):
                return self._send(status, {"error": message})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        return self._send(*self._handled(path, body))

    def _handled(self, path: str, body: bytes) -> tuple[int, Any]:
        hub = self.hub
        if path == "/api/whoami-v2":
            return 200, {"name": "someone", "type": "user"}
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
            if name in hub.repos:
                return 409, {"error": "You already created this model repo", "url": f"{hub.address}/{name}"}
            hub.repos[name] = {"private": wanted.get("private") or wanted.get("visibility") == "private"}
            hub.repos[name]["branches"] = {"main": {}}
            return 200, {"url": f"{hub.address}/{name}"}
        if path == "/api/validate-yaml":
            front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            faults = [] if isinstance(front, dict) else [{"message": "the model card has no front matter"}]
            return (400 if faults else 200), {"errors": faults, "warnings": [], "error": "invalid front matter"}
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path)
        if found is None or found[1] not in hub.repos:
            return 404, {"error": "Repository not found"}
        return self._of_repo(found[1], found[2] or "", body)

    def _of_repo(self, name: str, rest: str, body: bytes) -> tuple[int, Any]:
        branches = self.hub.repos[name]["branches"]
        kind, _, revision = rest.lstrip("/").partition("/")
        if kind == "branch":
            branches[revision] = dict(branches["main"])
            return 200, {}
        if kind == "preupload":
            files = json.loads(body)["files"]
            return 200, {
                "files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            }
        if kind == "commit":
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file" and item["value"]["path"] not in self.hub.lost:
                    branches[revision][item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            address = f"{self.hub.address}/{name}/commit/{'0' * 40}"
            return 200, {"commitUrl": address, "commitOid": "0" * 40, "success": True}
        files = branches[revision or "main"]
        siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
        return 200, {"id": name, "modelId": name, "sha": "0" * 40, "siblings": siblings, "tags": []}

    def _send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status >= 400:
            self.send_header("X-Error-Message", content["error"])
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def hub() -> Iterator[ScriptedHub]:
    found = ScriptedHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": found}))
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
