"""`rlhf score`: scores by an independent forward pass, rows of every kind, and going on after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf.cli import main
from rlhf.curate.output import manifest_path
from rlhf.data.encode import Encoder
from rlhf.data.records import Demonstration, Message
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.models import scoring

ROWS: list[dict[str, Any]] = [
    {"prompt": "오늘 날씨 어때?", "responses": ["맑아요!", "비가 와요.", "흐려."], "ranks": [1, 2, 3], "id": 7},
    {"prompt": "점심에 뭘 먹을까?", "chosen": "김치찌개는 어떠세요?", "rejected": "몰라."},
    {"messages": [{"role": "user", "content": "심심해."}, {"role": "assistant", "content": "산책 어때요?"}]},
    {"prompt": "우산을 잃어버렸어.", "responses": ["속상하셨겠어요."]},
    {
        "prompt": "제주도 가고 싶다.",
        "responses": ["", "즐거우실 거예요", "꼭 가세요!"],
        "answers": [{"finished": True}, {"finished": False}, {"finished": True}],
        "models": ["a", "a", "a"],
    },
]
PROMPTS = ["오늘 날씨 어때?", "점심에 뭘 먹을까?", "심심해.", "우산을 잃어버렸어.", "제주도 가고 싶다."]
TEXTS = [
    ["맑아요!", "비가 와요.", "흐려."],
    ["김치찌개는 어떠세요?", "몰라."],
    ["산책 어때요?"],
    ["속상하셨겠어요."],
    ["", "즐거우실 거예요", "꼭 가세요!"],
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def score(model: Path, rows: Path, out: Path, *flags: str) -> list[dict[str, Any]]:
    assert main(["score", "--model", str(model), "--in", str(rows), "--out", str(out), *flags]) == 0
    return read(out)


@pytest.fixture(scope="module")
def expected(tiny_reward: Path, chat_tokenizer: ChatTokenizer) -> list[list[float]]:
    """By plain transformers, one sequence at a time; an answer that did not finish without its EOS, an empty one as
    EOS alone."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward).eval()
    encoder = Encoder(chat_tokenizer, 512)
    found = []
    for prompt, texts in zip(PROMPTS, TEXTS, strict=True):
        scores = []
        for text in texts:
            turns = (Message("user", prompt), Message("assistant", text or "."))
            whole = encoder.demonstrations([Demonstration(turns)])[0]
            ids, begin = whole.ids.tolist(), int(whole.answer_mask.argmax())
            if not text:
                ids = [*ids[:begin], chat_tokenizer.eos_id]
            if text == "즐거우실 거예요":
                ids = ids[:-1]
            with torch.no_grad():
                hidden = model.gpt_neox(torch.tensor([ids])).last_hidden_state[0, -1]
                scores.append(float(model.score(hidden)))
        found.append(scores)
    return found


def test_rows_of_every_kind_are_scored_as_plain_transformers_does(
    tmp_path: Path, tiny_reward: Path, expected: list[list[float]]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_reward, run / "model")
    rows = score(run, written(tmp_path / "rows.jsonl", ROWS), tmp_path / "out.jsonl")
    assert [row.pop("rewards") for row in rows] == [pytest.approx(each, abs=1e-4) for each in expected]
    assert rows == ROWS  # all else as it was, in its order
    manifest = json.loads(manifest_path(tmp_path / "out.jsonl").read_text())
    assert manifest["kept"] == 5
    assert manifest["counts"] == {"answers": 10}
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_answers_that_people_marked_bad_are_scored_as_the_good_ones(tmp_path: Path, tiny_reward: Path) -> None:
    """What the thumbs of the chat page write; with --on-bad-row skip none of them may be lost."""
    said = [{"prompt": "심심해.", "response": text} for text in ("산책 어때요?", "몰라.")]
    marked = [said[0] | {"label": True}, said[1] | {"label": False}]
    plain = score(tiny_reward, written(tmp_path / "a.jsonl", said), tmp_path / "plain.jsonl")
    found = score(tiny_reward, written(tmp_path / "b.jsonl", marked), tmp_path / "out.jsonl", "--on-bad-row", "skip")
    assert [row["rewards"] for row in found] == [row["rewards"] for row in plain]
    assert [row["label"] for row in found] == [True, False]


def test_a_score_depends_on_neither_batch_nor_the_other_answers(
    tmp_path: Path, tiny_reward: Path, expected: list[list[float]]
) -> None:
    """With one token a batch every answer has a forward pass of its own."""
    rows = score(tiny_reward, written(tmp_path / "r.jsonl", ROWS), tmp_path / "out.jsonl", "--batch-tokens", "1")
    assert [row["rewards"] for row in rows] == [pytest.approx(each, abs=1e-4) for each in expected]


def test_the_documented_loading_gives_the_same_scores(tmp_path: Path, tiny_reward: Path) -> None:
    """By transformers and the model's own template, two answers padded on the right."""
    rows = score(tiny_reward, written(tmp_path / "r.jsonl", ROWS[1:2]), tmp_path / "out.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(tiny_reward)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward).eval()
    model.config.pad_token_id = tokenizer.pad_token_id  # as stage 2 writes it
    chats = [[{"role": "user", "content": PROMPTS[1]}, {"role": "assistant", "content": answer}] for answer in TEXTS[1]]
    inputs = tokenizer.apply_chat_template(chats, return_dict=True, return_tensors="pt", padding=True)
    assert inputs["attention_mask"].min() == 0
    with torch.no_grad():
        found = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    assert rows[0]["rewards"] == pytest.approx(found.tolist(), abs=1e-4)


def test_an_embedded_file_by_its_name(tmp_path: Path, tiny_reward: Path) -> None:
    assert main(["score", "--model", str(tiny_reward), "--in", "demo:rankings_dev", "--limit", "2",
                 "--out", str(tmp_path / "o.jsonl")]) == 0  # fmt: skip
    assert [len(row["rewards"]) == len(row["responses"]) for row in read(tmp_path / "o.jsonl")] == [True, True]


def test_an_interrupted_command_scores_only_the_rest(
    tmp_path: Path, tiny_reward: Path, expected: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are stored one by one here; the third forward pass is interrupted."""
    passes: list[int] = []
    real = scoring.forward_packed

    def counted(*given: Any) -> Any:
        passes.append(len(given[1].positions))
        if len(passes) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(scoring, "forward_packed", counted)
    rows, out = written(tmp_path / "rows.jsonl", ROWS[1:]), tmp_path / "out.jsonl"
    flags = ["score", "--model", str(tiny_reward), "--in", str(rows), "--out", str(out), "--batch-tokens", "2"]
    assert main(flags) == 130
    assert not out.exists()
    assert len(read(Path(f"{out}.partial"))) == 2  # the settings and one row, whose two answers took two passes
    assert main(flags) == 0
    assert len(passes) == 3 + 5  # the five answers of the other rows, each once
    assert [row["rewards"] for row in read(out)] == [pytest.approx(each, abs=1e-4) for each in expected[1:]]


def test_a_killed_process_is_continued(tmp_path: Path, tiny_reward: Path) -> None:
    """Killed outright as soon as a row is stored; what is stored is not scored again, and no row is there twice."""
    many = [{"prompt": f"질문 {number}", "responses": ["네.", "아니요."]} for number in range(400)]
    rows, out = written(tmp_path / "rows.jsonl", many), tmp_path / "out.jsonl"
    words = ["score", "--model", str(tiny_reward), "--in", str(rows), "--out", str(out), "--batch-tokens", "40"]
    process = subprocess.Popen([sys.executable, "-m", "rlhf", *words], stderr=subprocess.DEVNULL, env=os.environ)
    partial = Path(f"{out}.partial")
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = [line for line in partial.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    assert 4 < len(stored) < 400
    changed = json.loads(stored[1]) | {"rewards": [123.0, 456.0]}  # shows that the row is not scored again
    partial.write_text("".join([stored[0], json.dumps(changed) + "\n", *stored[2:], '{"row": 2']), encoding="utf-8")
    found = score(tiny_reward, rows, out, "--batch-tokens", "4096")
    assert [row["prompt"] for row in found] == [row["prompt"] for row in many]
    assert found[changed["row"]]["rewards"] == [123.0, 456.0]
    assert all(len(row["rewards"]) == 2 for row in found)


def test_other_settings_do_not_continue_what_was_begun(
    tmp_path: Path, tiny_reward: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = written(tmp_path / "rows.jsonl", ROWS), tmp_path / "out.jsonl"
    Path(f"{out}.partial").write_text('{"in": "of another file"}\n')
    assert main(["score", "--model", str(tiny_reward), "--in", str(rows), "--out", str(out)]) == 1
    assert "out.jsonl.partial" in capsys.readouterr().err


def test_a_row_without_an_answer_is_named_or_skipped(
    tmp_path: Path, tiny_reward: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = written(tmp_path / "rows.jsonl", [ROWS[2], {"prompt": "질문뿐"}, ROWS[3]])
    flags = ["score", "--model", str(tiny_reward), "--in", str(rows), "--out", str(tmp_path / "out.jsonl")]
    assert main(flags) == 1
    assert "rows.jsonl:2" in (shown := capsys.readouterr().err)
    assert "no answer to score" in shown
    assert main([*flags, "--on-bad-row", "skip"]) == 0
    assert len(read(tmp_path / "out.jsonl")) == 2
    assert "dropped 1 bad row" in capsys.readouterr().err


def test_a_policy_is_no_reward_model(tmp_path: Path, tiny_neox: Path, chat_tokenizer: ChatTokenizer,
                                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    shutil.copytree(tiny_neox, tmp_path / "sft" / "model")
    chat_tokenizer.save(tmp_path / "sft" / "model")
    rows = written(tmp_path / "rows.jsonl", ROWS)
    assert main(["score", "--model", str(tmp_path / "sft"), "--in", str(rows), "--out", str(tmp_path / "o")]) == 1
    assert "score.weight" in capsys.readouterr().err
