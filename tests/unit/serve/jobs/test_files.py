from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf.serve.access import ApiAccess
from rlhf.serve.errors import add_error_handlers
from rlhf.serve.jobs.file_routes import files_router
from rlhf.serve.jobs.file_store import FileStore, problems
from rlhf.serve.jobs.store import Job, JobStore, StoredFile
from rlhf.serve.keys import KeyStore

ROWS = [{"prompt": f"질문 {number}번이에요?", "completion": f"답 {number}번이에요."} for number in range(3)]
GOOD = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileStore]:
    store = JobStore(tmp_path / "jobs.sqlite")
    yield FileStore(tmp_path / "files", store)
    store.close()


@pytest.fixture
def client(files: FileStore) -> TestClient:
    return client_of(files, ApiAccess())


def client_of(files: FileStore, access: ApiAccess, **options: Any) -> TestClient:
    app = FastAPI()
    add_error_handlers(app)
    app.include_router(files_router(files, access, **options))
    return TestClient(app)


def upload(
    client: TestClient, content: bytes, name: str = "chat.jsonl", purpose: str = "fine-tune", **more: Any
) -> Any:
    return client.post("/v1/files", files={"file": (name, content)}, data={"purpose": purpose}, **more)


def test_a_good_file_is_kept_as_it_came(client: TestClient, files: FileStore) -> None:
    answer = upload(client, GOOD)
    assert answer.status_code == 200
    file = answer.json()
    assert (file["object"], file["bytes"], file["filename"]) == ("file", len(GOOD), "chat.jsonl")
    assert (file["purpose"], file["status"], file["status_details"]) == ("fine-tune", "processed", None)
    assert file["validation"]["rows"] == 3
    assert file["validation"]["usable_for"] == ["sft", "ppo"]
    assert client.get(f"/v1/files/{file['id']}").json() == file
    assert client.get(f"/v1/files/{file['id']}/content").content == GOOD
    assert [path.name for path in files.folder.iterdir()] == [f"{file['id']}.jsonl"]


def test_a_bad_file_names_its_lines(client: TestClient) -> None:
    lines = [*GOOD.splitlines(), b'{"prompt": "a"', '{"prompt": "왜요?"}'.encode(), b'{"prompt": "b", "completion": 3}']
    file = upload(client, b"\n".join(lines)).json()
    assert file["status"] == "error"
    details = file["status_details"]
    assert "line 4: invalid JSON" in details
    assert "line 5: " in details
    assert "line 6: " in details
    assert "/" not in file["validation"]["path"]  # where it lies is nobody's business


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/x.jsonl", "..\\..\\x.jsonl", "a\x00b.jsonl", "한글 이름.jsonl"]
)
def test_a_name_is_shown_and_never_a_path(client: TestClient, files: FileStore, name: str) -> None:
    file = upload(client, GOOD, name).json()
    assert "/" not in file["filename"]
    assert "\\" not in file["filename"]
    assert "\x00" not in file["filename"]
    assert [path.name for path in files.folder.iterdir()] == [f"{file['id']}.jsonl"]
    assert [path.name for path in files.folder.parent.iterdir() if "jobs.sqlite" not in path.name] == ["files"]


def test_the_ending_says_how_rows_are_read(client: TestClient) -> None:
    assert upload(client, json.dumps(ROWS).encode(), "chat.json").json()["status"] == "processed"
    table = "prompt,completion\n안녕?,안녕하세요.\n".encode()
    assert upload(client, table, "chat.CSV").json()["validation"]["rows"] == 1


@pytest.mark.parametrize("identifier", ["file-0", "..%2f..%2fjobs.sqlite", "%2e%2e", "file-0%00"])
def test_an_id_that_is_not_known_is_404(client: TestClient, identifier: str) -> None:
    for answer in (
        client.get(f"/v1/files/{identifier}"),
        client.get(f"/v1/files/{identifier}/content"),
        client.delete(f"/v1/files/{identifier}"),
    ):
        assert answer.status_code in (404, 405)
        said = answer.text.replace(unquote(identifier), "")  # a URL of no route is repeated
        assert "sqlite" not in said or "No such File" in said


def test_too_large_is_413_announced_or_not(files: FileStore) -> None:
    client = client_of(files, ApiAccess(), max_bytes=100)
    assert upload(client, b"x" * 101).status_code == 413

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(40):
            yield b"x" * (1 << 16)
        raise AssertionError("read on after the limit")

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/files", content=endless(), headers=headers | {"content-length": "99999999"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "file_too_large"
    assert list(files.folder.iterdir()) == []
    assert upload(client, GOOD[:100]).status_code == 200


def test_the_limit_counts_what_arrives(files: FileStore) -> None:
    client = client_of(files, ApiAccess(), max_bytes=100)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    chunks = iter([head, *[b"x" * (1 << 18)] * 8, b"\r\n--b--\r\n"])
    answer = client.post("/v1/files", content=chunks, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"files": {"file": ("a.jsonl", b"")}, "data": {"purpose": "fine-tune"}}, "file"),
        ({"files": {"file": ("a.jsonl", GOOD)}, "data": {"purpose": "assistants"}}, "purpose"),
        ({"files": {"file": ("a.jsonl", GOOD)}}, "purpose"),
        ({"files": {"other": ("a.jsonl", GOOD)}, "data": {"purpose": "fine-tune"}}, "file"),
        ({"json": {"purpose": "fine-tune"}}, "file"),
        ({"content": b"broken", "headers": {"content-type": "multipart/form-data"}}, "file"),
        ({"content": b"broken", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "file"),
    ],
)
def test_what_is_no_upload_is_400(client: TestClient, files: FileStore, sent: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/files", **sent)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert list(files.folder.iterdir()) == []


def test_listing_pages(client: TestClient) -> None:
    ids = [upload(client, GOOD).json()["id"] for _ in range(3)]
    first = client.get("/v1/files", params={"limit": 2}).json()
    assert [file["id"] for file in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    last = client.get("/v1/files", params={"limit": 2, "after": ids[1]}).json()
    assert [file["id"] for file in last["data"]] == [ids[0]]
    assert last["has_more"] is False
    oldest = client.get("/v1/files", params={"order": "asc", "limit": 1}).json()
    assert oldest["data"][0]["id"] == ids[0]
    assert client.get("/v1/files", params={"purpose": "batch"}).json()["data"] == []
    assert client.get("/v1/files", params={"after": "file-0"}).status_code == 400
    assert client.get("/v1/files", params={"limit": 0}).json()["error"]["param"] == "limit"


def test_deleting_a_file(client: TestClient, files: FileStore) -> None:
    identifier = upload(client, GOOD).json()["id"]
    assert client.delete(f"/v1/files/{identifier}").json() == {"id": identifier, "object": "file", "deleted": True}
    assert client.get(f"/v1/files/{identifier}").status_code == 404
    assert list(files.folder.iterdir()) == []


def test_a_file_a_job_reads_stays(client: TestClient, files: FileStore) -> None:
    identifier = upload(client, GOOD).json()["id"]
    files.store.add(Job("ftjob-1", "org-local", 1, 1, "queued", "sft", "tiny", identifier, None, {}))
    assert client.delete(f"/v1/files/{identifier}").status_code == 409
    assert client.get(f"/v1/files/{identifier}/content").content == GOOD
    assert files.store.move("ftjob-1", "cancelled", only_from=("queued",))
    assert client.delete(f"/v1/files/{identifier}").status_code == 200


def test_files_of_one_key_are_not_anothers(tmp_path: Path, files: FileStore) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    mine, other = ({"authorization": f"Bearer {keys.add(name)}"} for name in ("민수", "지현"))
    client = client_of(files, ApiAccess(keys))
    identifier = upload(client, GOOD, headers=mine).json()["id"]
    assert upload(client, GOOD).status_code == 401
    for answer in (
        client.get(f"/v1/files/{identifier}", headers=other),
        client.get(f"/v1/files/{identifier}/content", headers=other),
        client.delete(f"/v1/files/{identifier}", headers=other),
    ):
        assert answer.status_code == 404
    assert client.get("/v1/files", headers=other).json()["data"] == []
    assert client.get(f"/v1/files/{identifier}/content", headers=mine).content == GOOD


def test_a_check_that_was_broken_off_is_done_again(client: TestClient, files: FileStore) -> None:
    good, bad = upload(client, GOOD).json()["id"], upload(client, b"{\n").json()["id"]
    for identifier in (good, bad):
        files.store.set_checked(identifier, "uploaded", {})
    (files.folder / ".file-1.writing").write_bytes(b"half")
    files.recover()
    assert [file.status for file in files.store.find(StoredFile)] == ["error", "processed"]
    found = files.store.first(StoredFile, id=bad)
    assert found is not None
    assert problems(found)[0].startswith("line 1: ")
    assert len(list(files.folder.iterdir())) == 2
