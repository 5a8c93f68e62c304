import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from rlhf.cli import main
from rlhf.errors import ArtifactError, ConfigError
from rlhf.serve.access import ApiAccess, Caller, open_access
from rlhf.serve.errors import add_error_handlers
from rlhf.serve.keys import KeyStore

NOON = 1_700_049_600.0  # 2023-11-15 12:00:00 UTC


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    keys = KeyStore(tmp_path / "keys.sqlite")
    yield keys
    keys.close()


def client_of(access: ApiAccess) -> TestClient:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/who")
    def who(caller: Annotated[Caller, Depends(access)], tokens: int = 0) -> str:
        access.spend(caller, tokens)
        return caller.organization

    return TestClient(app)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_found_by_its_text_alone(store: KeyStore) -> None:
    key, other = store.add("민수"), store.add("지현")
    assert key != other
    found = store.find(key)
    assert found is not None
    assert found.name == "민수"
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    swapped = key[:18] + other[18:]  # one's id, the other's secret
    for wrong in ("", "x", changed, swapped, f"{key} ", f"{key}\n", key[:-1], "rlhf--", "키"):
        assert store.find(wrong) is None, wrong


def test_the_file_holds_no_secret(tmp_path: Path, store: KeyStore) -> None:
    secret = store.add("민수")[18:]
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert "민수".encode() in content
    assert secret.encode() not in content
    assert (tmp_path / "keys.sqlite").stat().st_mode & 0o077 == 0


def test_a_revoked_key_ends_at_once_in_another_process_too(tmp_path: Path, store: KeyStore) -> None:
    key = store.add("민수")
    client = client_of(ApiAccess(store))
    assert client.get("/who", headers=bearer(key)).status_code == 200
    elsewhere = KeyStore(tmp_path / "keys.sqlite")
    elsewhere.revoke("민수")
    elsewhere.close()
    assert client.get("/who", headers=bearer(key)).status_code == 401
    with pytest.raises(ConfigError, match="no key in use"):
        store.revoke("민수")
    assert store.add("민수") != key


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_a_key_needs_a_name(store: KeyStore, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        store.add(name)


def test_a_name_has_one_key(store: KeyStore) -> None:
    store.add("민수")
    with pytest.raises(ConfigError, match="has a key already"):
        store.add("민수")


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer rlhf-000000000000-x", "Basic abc", "KEY"])
def test_what_is_no_key_is_401_in_the_known_shape(store: KeyStore, header: str | None) -> None:
    key = store.add("민수")
    headers = {} if header is None else {"authorization": header.replace("KEY", key)}
    answer = client_of(ApiAccess(store)).get("/who", headers=headers)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert key not in answer.text


def test_requests_a_minute(store: KeyStore) -> None:
    clock = Clock()
    client = client_of(ApiAccess(store, now=clock))
    key, other = store.add("민수", requests_per_minute=2), store.add("지현")
    statuses = []
    for second in (0, 20, 30, 59.5, 60, 61, 80):
        clock.now = NOON + second
        statuses.append(client.get("/who", headers=bearer(key)).status_code)
    # 0 and 20 fill the minute; 60 has left 0 behind; 61 has 20 and 60; 80 has left 20 behind.
    assert statuses == [200, 200, 429, 429, 200, 429, 200]
    refused = client.get("/who", headers=bearer(key))  # at 80: the request of 60 leaves at 120
    assert refused.headers["retry-after"] == "40"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/who", headers=bearer(other)).status_code == 200


def test_tokens_a_day_renew_at_midnight_utc(tmp_path: Path, store: KeyStore) -> None:
    clock = Clock()
    key = store.add("민수", tokens_per_day=100)
    client = client_of(ApiAccess(store, now=clock))
    for tokens, status in ((60, 200), (60, 200), (1, 429)):  # the second one goes over; the third is refused
        answer = client.get("/who", params={"tokens": tokens}, headers=bearer(key))
        assert answer.status_code == status
    assert answer.json()["error"]["code"] == "insufficient_quota"
    assert answer.headers["retry-after"] == str(12 * 3600)  # it is noon
    again = client_of(ApiAccess(KeyStore(tmp_path / "keys.sqlite"), now=clock))  # after a restart
    assert again.get("/who", headers=bearer(key)).status_code == 429
    clock.now += 12 * 3600
    assert client.get("/who", headers=bearer(key)).status_code == 200


def test_without_keys_this_machine_may_come_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    for host in ("127.0.0.1", "localhost", "::1"):
        assert client_of(open_access(host, path)).get("/who").json() == "org-local"
    assert not path.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_other_machines_need_keys(tmp_path: Path, host: str) -> None:
    path = tmp_path / "keys.sqlite"
    with pytest.raises(ConfigError, match="there is no API key"):
        open_access(host, path)
    keys = KeyStore(path)
    with pytest.raises(ConfigError, match="there is no API key"):
        open_access(host, path)  # an empty file is no key
    keys.add("민수")
    assert client_of(open_access(host, path)).get("/who").status_code == 401


def test_taking_the_last_key_back_does_not_open_the_door(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    keys.add("민수")
    keys.revoke("민수")
    assert client_of(open_access("127.0.0.1", tmp_path / "keys.sqlite")).get("/who").status_code == 401


def test_callers_are_told_apart(store: KeyStore) -> None:
    keys = [store.add(name) for name in ("민수", "지현")]
    client = client_of(ApiAccess(store))
    assert len({client.get("/who", headers=bearer(key)).json() for key in keys}) == 2


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.sqlite").write_text("민수: 비밀", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"keys\.sqlite: is not a SQLite database(.|\n)*choose another --keys"):
        KeyStore(tmp_path / "keys.sqlite")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.sqlite")
    assert main(["keys", "list", "--keys", file]) == 1
    assert "rlhf keys add" in capsys.readouterr().err
    assert main(["keys", "add", "민수", "--tokens-per-day", "1000", "--keys", file]) == 0
    key = capsys.readouterr().out.strip()
    store = KeyStore(Path(file))
    found = store.find(key)
    assert found is not None
    assert (found.name, found.tokens_per_day, found.requests_per_minute) == ("민수", 1000, None)
    assert main(["keys", "list", "--keys", file]) == 0
    shown = capsys.readouterr().out
    assert "민수" in shown
    assert key[18:] not in shown
    assert main(["keys", "revoke", found.id, "--keys", file]) == 0
    assert store.find(key) is None
    assert main(["keys", "revoke", "민수", "--keys", file]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["keys", "add", "지현", "--requests-per-minute", "0"])


def test_a_change_is_whole_or_absent(store: KeyStore) -> None:
    database = store._database

    def spend_twice() -> None:
        with database.change():
            database.run("INSERT INTO spent VALUES ('k', 'd', 1)")
            database.run("INSERT INTO spent VALUES ('k', 'd', 2)")

    with pytest.raises(sqlite3.IntegrityError):
        spend_twice()
    assert store.spent("k", "d") == 0
