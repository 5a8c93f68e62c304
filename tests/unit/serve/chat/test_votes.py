"""Votes of the chat page: a line each, whole, in files the stages read."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf.data.records import Demonstration, Message, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ConfigError, DataError
from rlhf.serve.access import ApiAccess
from rlhf.serve.chat import votes
from rlhf.serve.chat.page import chat_page_router
from rlhf.serve.chat.votes import JsonLinesFile, VoteFiles
from rlhf.serve.errors import ApiError, add_error_handlers
from rlhf.serve.keys import KeyStore
from rlhf.web.page import content_policy

ASKED = {"role": "user", "content": "면접을 망쳤어요."}
VOTE = {
    "prompt": [{"role": "system", "content": "다정하게 답하세요."}, ASKED],
    "responses": ["많이 속상하셨겠어요.", "다음에 잘하세요."],
    "models": ["ppo", "sft"],
    "verdict": "left",
    "blind": True,
    "finish_reasons": ["stop", "length"],
    "settings": {"temperature": 0.7, "top_p": 1, "max_tokens": 64, "seed": 7},
}
RATING = {"messages": [ASKED, {"role": "assistant", "content": "괜찮아요."}], "rating": "down", "model": "ppo"}


def client_for(folder: Path, access: ApiAccess | None = None, *, keep_votes: bool = True) -> TestClient:
    app = FastAPI()
    add_error_handlers(app)
    files = VoteFiles(folder / "votes.jsonl") if keep_votes else None
    app.include_router(chat_page_router(access or ApiAccess(), files, {"ppo", "sft"}.__contains__))
    return TestClient(app)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_votes_are_rankings_and_ratings_lie_beside_them(tmp_path):
    client = client_for(tmp_path)
    for verdict in ("left", "right", "tie", "both_bad"):
        assert client.post("/v1/votes", json=VOTE | {"verdict": verdict}).status_code == 201
    assert client.post("/v1/ratings", json=RATING).status_code == 201
    path = tmp_path / "votes.jsonl"
    assert [row["ranks"] for row in rows(path)] == [[1, 2], [2, 1], [1, 1], [1, 1]]
    assert [row["all_bad"] for row in rows(path)] == [False, False, False, True]
    first = rows(path)[0]
    assert {key: first[key] for key in VOTE} == VOTE
    loaded = read_records(DataSource(str(path)), Ranking)
    system, asked = Message("system", "다정하게 답하세요."), Message("user", "면접을 망쳤어요.")
    answers = ("많이 속상하셨겠어요.", "다음에 잘하세요.")
    assert loaded.records[0] == Ranking((system, asked), answers, (1, 2), "chat-votes")
    assert (len(loaded.records), loaded.report.num_tied) == (2, 2)
    ratings = tmp_path / "votes.ratings.jsonl"
    assert rows(ratings)[0].items() >= RATING.items()
    with pytest.raises(DataError, match="says that the answer is bad"):
        read_records(DataSource(str(ratings)), Demonstration)
    ratings.write_text(ratings.read_text(encoding="utf-8").replace('"down"', '"up"'), encoding="utf-8")
    liked = read_records(DataSource(str(ratings)), Demonstration)
    assert (len(liked.records), liked.report.unread) == (1, {})
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, ratings)] == [0o600] * 2


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"verdict": "best"}, "verdict"),
        ({"responses": ["하나뿐이에요."]}, "responses"),
        ({"responses": ["  ", "네."]}, "responses[0]"),
        ({"responses": ["네.", " 네."]}, "verdict"),
        ({"prompt": [ASKED, ASKED]}, "prompt"),
        ({"prompt": [*VOTE["prompt"], {"role": "assistant", "content": "네."}]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"extra": 1}, "extra"),
        ({"settings": {"temperature": 3, "top_p": 1, "max_tokens": 1}}, "settings.temperature"),
    ],
)
def test_what_stage_2_could_not_use_is_refused(tmp_path, change, param):
    reply = client_for(tmp_path).post("/v1/votes", json=VOTE | change)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert (tmp_path / "votes.jsonl").read_bytes() == b""


def test_unknown_models_and_unfinished_ratings_are_refused(tmp_path):
    client = client_for(tmp_path)
    assert client.post("/v1/votes", json=VOTE | {"models": ["ppo", "gpt"]}).status_code == 404
    assert client.post("/v1/ratings", json=RATING | {"messages": [ASKED, ASKED]}).status_code == 400
    assert (
        client.post("/v1/votes", json=VOTE | {"responses": ["가" * 190_000] * 2, "verdict": "tie"}).status_code == 413
    )
    assert (tmp_path / "votes.jsonl").read_bytes() == (tmp_path / "votes.ratings.jsonl").read_bytes() == b""


def test_votes_need_a_key_where_the_service_does_and_the_page_does_not(tmp_path):
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.add("민수")
    client = client_for(tmp_path, ApiAccess(store))
    assert client.get("/").status_code == 200
    assert client.post("/v1/votes", json=VOTE).status_code == 401
    assert client.post("/v1/votes", json=VOTE, headers={"authorization": f"Bearer {key}"}).status_code == 201
    assert [row["voter"] for row in rows(tmp_path / "votes.jsonl")] == [key.split("-")[1]]
    store.close()


def test_without_a_file_there_is_nothing_to_vote_with(tmp_path):
    client = client_for(tmp_path, keep_votes=False)
    page = client.get("/")
    assert '<html lang="ko" data-votes="off">' in page.text
    assert '<html lang="ko" data-votes="on">' in client_for(tmp_path).get("/").text
    assert client.post("/v1/votes", json=VOTE).status_code == 404
    assert page.headers["content-security-policy"] == content_policy(page.text)
    assert page.text.count("<script") == 1
    assert "innerHTML" not in page.text
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page.text


def test_a_line_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "new" / "votes.jsonl"
    lines = JsonLinesFile(path, max_bytes=40)
    path.write_bytes(b'{"torn": ')  # a crash in the middle of a line
    lines.append({"n": 1})
    assert path.read_bytes() == b'{"torn": \n{"n": 1}\n'
    with pytest.raises(ApiError, match="the file is full"):
        lines.append({"n": "x" * 40})
    write = votes.os.write
    monkeypatch.setattr(votes.os, "write", lambda descriptor, line: write(descriptor, line[:3]))
    with pytest.raises(ApiError, match="the disk is full"):
        lines.append({"n": 2})
    monkeypatch.undo()
    lines.append({"n": 3})
    assert path.read_bytes() == b'{"torn": \n{"n": 1}\n{"n": 3}\n'


def test_a_file_that_cannot_be_used_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="jsonl"):
        VoteFiles(tmp_path / "votes.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        VoteFiles(tmp_path / "folder.jsonl")
