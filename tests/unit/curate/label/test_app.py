"""The label page's HTTP interface, over a real server on loopback."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

import uvicorn

from rlhf.cli import main
from rlhf.curate.label.app import MAX_REQUEST_BYTES
from rlhf.curate.label.command import Labelling, LabelOptions, listen
from rlhf.errors import ConfigError, DataError
from rlhf.web.guard import LOOPBACK

ROWS = [
    {
        "prompt": "안녕?",
        "responses": ["안녕하세요!", "왜."],
        "models": ["비밀-모델-가", "비밀-모델-나"],
        "source": "출처-하나",
    },
    {"prompt": "뭐 먹지?", "responses": ["국수는 어떠세요?", "몰라."], "models": ["비밀-모델-나", "비밀-모델-가"]},
]


@dataclass
class Page:
    """A running page and what it said so far."""

    port: int
    labelling: Labelling
    tokens: dict[str, str]
    owner: str
    answers: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, *, who: str = "", **headers: str) -> tuple[int, Any]:
        """(status, JSON) of one request; `who` sends that person's token."""
        if who:
            headers["Authorization"] = f"Bearer {self.tokens.get(who, who)}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        self.answers.append(text)
        return answer.status, json.loads(text)


def options_for(folder: Path, **rest: Any) -> LabelOptions:
    rows = folder / "in.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return LabelOptions(str(rows), folder / "labels.jsonl", overlap=1.0, port=0, **rest)


def running(options: LabelOptions) -> Iterator[Page]:
    labelling = Labelling(options)
    access = labelling.access()
    listener = listen(options.host, options.port)
    server = uvicorn.Server(uvicorn.Config(labelling.app(access), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    listener.listen()
    thread.start()
    tokens = {name: token for token, name in access.people.items()}
    yield Page(listener.getsockname()[1], labelling, tokens, access.owner_token)
    server.should_exit = True
    thread.join()
    listener.close()
    labelling.store.close()


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Page]:
    yield from running(options_for(tmp_path, people=("지수", "민호")))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Page]:
    yield from running(options_for(tmp_path))


def test_a_row_is_ranked_undone_and_exported(team, tmp_path):
    status, state = team.ask("GET", "/api/row", who="지수")
    assert (status, state["name"], state["done"], state["left"]) == (200, "지수", 0, 2)
    path = f"/api/rows/{state['row']['number']}"
    best = next(place for place, text in enumerate(state["row"]["answers"]) if text.endswith(("!", "?")))
    draft = {"tiers": [[best]], "edit_of": None, "edit_text": "", "comment": "친절해요"}
    assert team.ask("PUT", path, draft, who="지수") == (200, {"saved": True})
    assert team.ask("GET", "/api/row", who="지수")[1]["row"]["tiers"] == [[best]]
    full = {**draft, "tiers": [[best], [1 - best]], "verdict": "ranked"}
    status, after = team.ask("POST", path, full, who="지수")
    assert (status, after["done"], after["left"]) == (200, 1, 1)
    assert after["row"]["number"] != state["row"]["number"]
    status, back = team.ask("POST", "/api/undo", who="지수")
    assert (status, back["undone"], back["done"]) == (200, True, 0)
    assert (back["row"]["tiers"], back["row"]["comment"]) == ([[best], [1 - best]], "친절해요")
    team.ask("POST", path, full, who="지수")
    assert team.ask("POST", "/api/export", who="지수") == (200, {"rows": 1, "file": "labels.jsonl"})
    row = json.loads((tmp_path / "labels.jsonl").read_text(encoding="utf-8"))
    assert row["ranks"] == [1, 2]
    assert row["comments"] == ["친절해요"]
    assert team.ask("GET", "/api/row", who="민호")[1]["done"] == 0


def test_models_and_sources_never_reach_the_page(team):
    for who in ("지수", "민호"):
        while (state := team.ask("GET", "/api/row", who=who)[1])["row"] is not None:
            body = {"verdict": "tie"}
            assert team.ask("POST", f"/api/rows/{state['row']['number']}", body, who=who)[0] == 200
        team.ask("POST", "/api/undo", who=who)
        team.ask("POST", "/api/export", who=who)
        team.ask("GET", "/api/agreement", who=who)
    said = "".join(team.answers)
    assert "국수는 어떠세요?" in said
    assert "비밀-모델" not in said
    assert "출처-하나" not in said


def test_only_a_link_lets_in(team):
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"X-Annotator": quote("지수")},
    ):
        for method, path in (("GET", "/api/row"), ("POST", "/api/undo"), ("POST", "/api/export")):
            assert team.ask(method, path, **headers)[0] == 401, (headers, path)
        assert team.ask("PUT", "/api/rows/1", {}, **headers)[0] == 401
    assert team.ask("GET", "/api/row", who=team.owner)[0] == 401  # the owner is no annotator
    assert team.ask("GET", "/api/session") == (200, {"asks_name": False})


def test_agreement_is_the_owners(team):
    assert team.ask("GET", "/api/agreement")[0] == 401
    assert team.ask("GET", "/api/agreement", who="지수")[0] == 401
    status, report = team.ask("GET", "/api/agreement", who=team.owner)
    assert (status, report["judgements"], report["alpha"]) == (200, 0, None)
    status, refused = team.ask("POST", "/api/export", who=team.owner)
    assert (status, refused["detail"]) == (422, "nothing has been labelled yet")


@pytest.mark.parametrize(
    "body",
    [
        {"tiers": [[0], [0]]},
        {"tiers": [[7]]},
        {"tiers": [["0"]]},
        {"tiers": [[0]] * 10},
        {"tiers": [], "verdict": "ranked"},
        {"tiers": [], "path": "/etc/passwd"},
        {"edit_text": "가" * 20_001},
        {"comment": "가" * 2_001},
        {"comment": 3},
        b"{",
        b'{"comment": "\\ud800"}',  # half a surrogate pair
    ],
)
def test_a_bad_body_changes_nothing(team, body):
    number = team.ask("GET", "/api/row", who="지수")[1]["row"]["number"]
    method = "POST" if isinstance(body, dict) and "verdict" in body else "PUT"
    assert team.ask(method, f"/api/rows/{number}", body, who="지수")[0] == 422
    state = team.ask("GET", "/api/row", who="지수")[1]
    assert (state["row"]["tiers"], state["done"]) == ([], 0)


def test_a_store_that_cannot_be_written_is_not_the_persons_fault(team):
    number = team.ask("GET", "/api/row", who="지수")[1]["row"]["number"]
    database = team.labelling.store._database
    database.run("PRAGMA query_only = 1")
    answer = team.ask("PUT", f"/api/rows/{number}", {"comment": "음"}, who="지수")
    assert answer == (503, {"detail": "cannot be written"})
    database.run("PRAGMA query_only = 0")
    assert team.ask("PUT", f"/api/rows/{number}", {"comment": "음"}, who="지수")[0] == 200


def test_rows_of_others_cannot_be_written(team):
    number = team.ask("GET", "/api/row", who="지수")[1]["row"]["number"]
    assert team.ask("POST", f"/api/rows/{number}", {"verdict": "tie"}, who="민호")[0] == 422
    assert team.ask("POST", "/api/rows/99", {"verdict": "tie"}, who="지수")[0] == 422
    assert team.ask("POST", "/api/rows/x", {"verdict": "tie"}, who="지수")[0] == 422


def test_a_large_request_is_refused(team):
    body = b'{"comment": "' + b"a" * MAX_REQUEST_BYTES + b'"}'
    assert team.ask("PUT", "/api/rows/1", body, who="지수")[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", team.port, timeout=10)
    connection.request("PUT", "/api/rows/1", iter([body]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_without_links_people_give_a_name(alone):
    assert alone.ask("GET", "/api/session") == (200, {"asks_name": True})
    assert alone.ask("GET", "/api/row")[0] == 401
    for name in ("", "   ", "가" * 41, "줄\n바꿈"):
        assert alone.ask("GET", "/api/row", **{"X-Annotator": quote(name)})[0] == 401, name
    status, state = alone.ask("GET", "/api/row", **{"X-Annotator": quote("하나")})
    assert (status, state["name"]) == (200, "하나")
    assert alone.ask("GET", "/api/agreement", **{"X-Annotator": quote("하나")})[0] == 401
    assert alone.ask("GET", "/api/agreement", who=alone.owner)[0] == 200


def test_another_sites_name_for_this_machine_is_refused(alone):
    assert alone.ask("GET", "/api/session", Host="labels.example:80")[0] == 421
    assert alone.ask("GET", "/api/session", Host=f"localhost:{alone.port}")[0] == 200


def test_the_page_runs_nothing_but_itself(alone):
    for path in ("/", "/agreement"):
        connection = http.client.HTTPConnection("127.0.0.1", alone.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        text, policy = answer.read().decode(), answer.getheader("content-security-policy")
        connection.close()
        assert answer.status == 200
        assert answer.getheader("set-cookie") is None
        assert "default-src 'none'; script-src 'sha256-" in policy
        assert "unsafe" not in policy
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text


def test_links_survive_a_restart(tmp_path):
    options = options_for(tmp_path, people=("지수", "민호"))
    first = Labelling(options)
    tokens = dict(first.access().people)
    first.store.close()
    second = Labelling(options)
    assert dict(second.access().people) == tokens
    assert sorted(tokens.values()) == ["민호", "지수"]
    lines = list(second.greeting(second.access(), 7861))
    for token, name in tokens.items():
        assert f"  {name}\thttp://127.0.0.1:7861/#token={token}" in lines
    second.store.close()


def test_other_machines_need_links(tmp_path):
    for host in ("0.0.0.0", "192.168.0.7", "::"):
        with pytest.raises(ConfigError, match="--annotators 지수,민호"):
            options_for(tmp_path, host=host)
        assert options_for(tmp_path, host=host, people=("지수",)).people == ("지수",)
    assert "0.0.0.0" not in LOOPBACK


def test_options_that_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match="names that differ"):
        options_for(tmp_path, people=("지수", "지수"))
    with pytest.raises(DataError, match="is a folder, or the input"):
        Labelling(LabelOptions(options_for(tmp_path).rows, tmp_path / "in.jsonl"))
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        LabelOptions("in.jsonl", tmp_path / "out.jsonl", overlap=20)


def test_a_port_in_use_is_said(alone, tmp_path, capsys):
    rows = str(tmp_path / "in.jsonl")
    out = str(tmp_path / "other.jsonl")
    assert main(["data", "label", "--in", rows, "--out", out, "--port", str(alone.port)]) == 1
    assert f"127.0.0.1:{alone.port}: cannot listen" in capsys.readouterr().err


def test_export_only(tmp_path, capsys):
    options = options_for(tmp_path)
    command = ["data", "label", "--in", options.rows, "--out", str(options.out), "--export-only"]
    assert main(command) == 1
    assert "nothing has been labelled yet" in capsys.readouterr().err
    labelling = Labelling(options)
    row = labelling.store.open_row("지수")
    labelling.store.submit("지수", row.number, "bad", row.draft)
    labelling.store.close()
    assert main(command) == 0
    assert "1 rows; dropped 1 not labelled yet; 1 all tied" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == [
        "in.jsonl",
        "labels.jsonl",
        "labels.jsonl.manifest.json",
        "labels.jsonl.sqlite",
        *(name for name in ("labels.jsonl.sqlite-shm", "labels.jsonl.sqlite-wal") if (tmp_path / name).exists()),
    ]
