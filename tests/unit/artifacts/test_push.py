"""`rlhf push` against a hub on this machine: what arrives, and what is refused before a model is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load

from rlhf.artifacts.files import write_json
from rlhf.artifacts.push import check_push, is_exported, push
from rlhf.errors import ArtifactError
from tests.support.finished_runs import here
from tests.support.hub import TOKEN, ScriptedHub, hub
from tests.support.launcher import REPOSITORY


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder as `rlhf export` leaves it."""
    path = tmp_path / "release"
    path.mkdir()
    (path / "README.md").write_text("---\nlicense: mit\n---\n# 말투\n", encoding="utf-8")
    (path / "model.safetensors").write_bytes(b"weights" * 100)
    write_json(path / "manifest.json", {"export": {"run": "runs/ppo"}})
    return path


def command(scripted: ScriptedHub, *words: str, token: str = TOKEN, **more: str) -> subprocess.CompletedProcess[str]:
    """`rlhf push` in a process of its own, which the hub's address reaches by the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": scripted.address,
        "PYTHONPATH": str(REPOSITORY),
        **({"HF_TOKEN": token} if token else {}),
    }
    code = "import sys; from rlhf.cli import main; status = main(sys.argv[1:])"
    code += "; print('torch' in sys.modules); sys.exit(status)"
    return subprocess.run(
        [sys.executable, "-c", code, "push", *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment | more,
        cwd=REPOSITORY,
    )


def test_a_finished_run_is_exported_and_pushed_with_its_card(scripted: ScriptedHub, full_run: Path) -> None:
    done = command(scripted, str(full_run), "--repo", "someone/tiny-ppo", "--dtype", "bfloat16")
    assert done.returncode == 0, done.stderr
    files = scripted.files("someone/tiny-ppo")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "manifest.json"} <= set(files)
    assert {str(weight.dtype) for weight in load(files["model.safetensors"]).values()} == {"torch.bfloat16"}
    assert files["README.md"].decode().startswith("---\n")
    assert scripted.repos["someone/tiny-ppo"]["private"]
    assert f"{len(files)} files" in done.stdout
    assert "pushing to someone/tiny-ppo as someone" in done.stderr
    assert not list(full_run.parent.glob(".push-*"))


def test_an_exported_folder_is_pushed_as_it_is(scripted: ScriptedHub, full_run: Path, tmp_path: Path) -> None:
    here(full_run, tmp_path / "release")
    assert is_exported(tmp_path / "release")
    done = command(scripted, str(tmp_path / "release"), "--repo", "org/tiny", "--public", "--revision", "v2")
    assert done.returncode == 0, done.stderr
    files = scripted.files("org/tiny", "v2")
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "release").iterdir()}
    assert scripted.files("org/tiny") == {}
    assert not scripted.repos["org/tiny"]["private"]
    assert done.stdout.endswith("False\n")  # no torch
    again = command(scripted, str(tmp_path / "release"), "--repo", "org/tiny", "--dtype", "float16")
    assert "is exported already" in again.stderr


@pytest.mark.parametrize(
    ("words", "token", "more", "said"),
    [
        (["--repo", "tiny"], TOKEN, {}, "'tiny' is no repository of the hub"),
        (["--repo", "org/tiny"], "hf_other", {}, "the hub refuses the token"),
        (["--repo", "org/tiny"], "", {"HF_HOME": "/nonexistent"}, "nobody is logged in"),
        (["--repo", "org/tiny"], TOKEN, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (["--repo", "org/tiny"], TOKEN, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached"),
    ],
)
def test_refusals_before_a_model_is_loaded(
    scripted: ScriptedHub, full_run: Path, words: list[str], token: str, more: dict[str, str], said: str
) -> None:
    done = command(scripted, str(full_run), *words, token=token, **more)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "False\n"  # torch was not imported
    assert not [line for line in scripted.asked if line.startswith("POST")]


def test_what_the_hub_refuses_is_said_with_its_words(scripted: ScriptedHub, folder: Path) -> None:
    scripted.refuse["POST", "/api/repos/create"] = (403, "You don't have the rights to create a model under org")
    with pytest.raises(ArtifactError, match=r"rights to create a model under org.*\(403\)") as caught:
        push(folder, "org/tiny", public=False, endpoint=scripted.address, token=TOKEN)
    assert "hf auth login" in caught.value.fix


def test_a_push_that_lost_a_file_is_an_error(scripted: ScriptedHub, folder: Path) -> None:
    scripted.lost.add("model.safetensors")
    with pytest.raises(ArtifactError, match=r"lists other files than were pushed: model\.safetensors"):
        push(folder, "org/tiny", public=False, endpoint=scripted.address, token=TOKEN)
    scripted.lost.clear()
    pushed = push(folder, "org/tiny", public=True, endpoint=scripted.address, token=TOKEN)
    assert (pushed.files, scripted.files("org/tiny")["model.safetensors"]) == (3, b"weights" * 100)
    assert scripted.repos["org/tiny"]["private"]  # one that exists stays as it is


def test_a_folder_that_is_no_export_is_refused(scripted: ScriptedHub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert check_push("org/tiny", endpoint=scripted.address, token=TOKEN) == "someone"
    with pytest.raises(ArtifactError, match="neither a finished run nor an exported folder"):
        push(tmp_path / "model", "org/tiny", public=False, endpoint=scripted.address, token=TOKEN)
