"""The judge and the held-out prompts are apart from what the arms learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.artifacts.files import write_json, write_text
from rlhf.data.readers import locate, sha256_of
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError
from rlhf.evaluate.reward import leakage
from rlhf.runs.arms.unseen import require_unseen
from tests.unit.runs.arms.conftest import THINGS, plan


def finished(folder: Path, rows: Path, number: int, *, stage: str = "reward", kind: str = "ranking") -> str:
    """A run by its manifest: what it learned from."""
    entry = {"role": "train", "path": str(rows), "format": kind, "num_kept": number, "num_rows": number}
    write_json_in(folder, {"stage": stage, "data": [{**entry, "sha256": sha256_of(locate(str(rows)))}]})
    return str(folder)


def write_json_in(folder: Path, manifest: dict[str, object]) -> None:
    folder.mkdir()
    write_json(folder / "manifest.json", manifest)


@pytest.fixture
def held_out(tmp_path: Path) -> str:
    path = tmp_path / "held_out.jsonl"
    write_text(path, json.dumps({"prompt": "새로운 말이에요?"}, ensure_ascii=False) + "\n")
    return f"held_out.prompts={path}"


def test_shares_of_one_file_are_apart(tmp_path: Path, rankings: Path, held_out: str) -> None:
    made = plan(tmp_path / "out", rankings, held_out)
    made.divide()
    require_unseen(made)


def test_a_finished_judge_must_not_have_learned_from_the_arms_rankings(
    tmp_path: Path, rankings: Path, held_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = finished(tmp_path / "judge", rankings, 100)
    words = (held_out, "judge.config=''", f"judge.model={judge}")
    made = plan(tmp_path / "out", rankings, *words)
    made.divide()
    with pytest.raises(DataError, match=r"judge\.model: \d+ of the judge's 100 rankings are also the arms'"):
        require_unseen(made)
    write_text(rankings.with_name("other.jsonl"), rankings.read_text(encoding="utf-8").replace("좋아요", "별로예요"))
    other = finished(tmp_path / "other", rankings.with_name("other.jsonl"), 100)
    require_unseen(plan(tmp_path / "out", rankings, *words, f"judge.model={other}"))
    assert other not in capsys.readouterr().err  # the SFT model of the plan has no manifest, which is said
    rankings.with_name("other.jsonl").unlink()
    require_unseen(plan(tmp_path / "out", rankings, *words, f"judge.model={other}"))
    assert f"what {other} learned from cannot be read" in capsys.readouterr().err


def test_what_a_finished_judge_learned_from_is_read_once(
    tmp_path: Path, rankings: Path, held_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rankings are compared with the arms', its questions with the held-out prompts."""
    other = rankings.with_name("other.jsonl")
    write_text(other, rankings.read_text(encoding="utf-8").replace("좋아요", "별로예요"))
    judge = finished(tmp_path / "judge", other, 100)
    made = plan(tmp_path / "out", rankings, held_out, "judge.config=''", f"judge.model={judge}")
    made.divide()
    read: list[str] = []

    def counted(source: DataSource, *given: Any, **named: Any) -> Any:
        read.append(source.path)
        return read_records(source, *given, **named)

    monkeypatch.setattr(leakage, "read_records", counted)
    require_unseen(made)
    assert read == [str(other)]


def test_a_finished_reward_model_must_not_have_learned_from_the_judges(
    tmp_path: Path, rankings: Path, held_out: str
) -> None:
    reward = finished(tmp_path / "reward", rankings, 100)
    made = plan(tmp_path / "out", rankings, held_out, "reward.config=''", f"reward.model={reward}")
    made.divide()
    with pytest.raises(DataError, match="are also the arms'"):
        require_unseen(made)


def test_held_out_prompts_are_in_no_training_file(tmp_path: Path, rankings: Path, held_out: str) -> None:
    seen = tmp_path / "seen.jsonl"
    write_text(seen, json.dumps({"prompt": f"{THINGS[0]}  어때요?"}, ensure_ascii=False) + "\n")  # spaces aside
    made = plan(tmp_path / "out", rankings, f"held_out.prompts={seen}", "preferences.dev=0")
    made.divide()
    with pytest.raises(DataError, match="1 prompts are also in training data"):
        require_unseen(made)
    prompts = held_out.partition("=")[2]
    made = plan(tmp_path / "out", rankings, held_out, "preferences.dev=0", f"prompts={prompts}")
    with pytest.raises(DataError, match="새로운 말이에요"):
        require_unseen(made)


def test_held_out_prompts_are_in_no_file_of_a_finished_model(
    tmp_path: Path, rankings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The SFT model's demonstrations, and the rankings of a finished judge's parent."""
    rows = tmp_path / "demonstrations.jsonl"
    write_text(rows, json.dumps({"prompt": "새로운 말이에요?", "response": "네."}, ensure_ascii=False) + "\n")
    sft = finished(tmp_path / "sft", rows, 1, stage="sft", kind="prompt-response")
    held_out = tmp_path / "held_out.jsonl"
    write_text(held_out, json.dumps({"prompt": "새로운 말이에요?"}, ensure_ascii=False) + "\n")
    made = plan(tmp_path / "out", rankings, f"held_out.prompts={held_out}", f"sft={sft}")
    made.divide()
    with pytest.raises(DataError, match="1 prompts are also in training data: 새로운 말이에요"):
        require_unseen(made)
    rows.unlink()
    require_unseen(made)
    said = capsys.readouterr().err
    assert f"warning: not all that {sft} was trained on can be read ({rows}: no such file)" in said
