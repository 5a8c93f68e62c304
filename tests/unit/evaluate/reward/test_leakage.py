"""Test texts in training data, through manifests that nest."""

from __future__ import annotations

import hashlib
import json
import unicodedata

from rlhf.curate.row_texts import normalised
from rlhf.data.records import Message, Ranking
from rlhf.evaluate.reward.leakage import leakage, training_rankings, training_rows

PAIRS = [
    {"prompt": "비 좋아요?", "chosen": "네, 좋아요!", "rejected": "몰라."},
    {"prompt": "눈 좋아요?", "chosen": "네.", "rejected": "싫어."},
]
DEMONSTRATIONS = [{"prompt": "밥 먹었어요?", "response": "아직이요."}]
PROMPTS = [{"prompt": "책 있어요?"}]


def entry(path, rows, file_format, *, role="train", num_kept=None):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return {
        "role": role,
        "path": str(path),
        "format": file_format,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "num_kept": len(rows) if num_kept is None else num_kept,
    }


def asking(*prompts, answers=("새 답이에요.", "또 다른 답.")):
    return [Ranking((Message("user", prompt),), answers, (1, 2)) for prompt in prompts]


def nested(tmp_path):
    """A reward model on pairs, made from an SFT model on demonstrations, made from a base without manifest."""
    base = {"path": "base/model", "sha256": "0"}
    sft = {
        "path": "sft/model",
        "stage": "sft",
        "data": [entry(tmp_path / "sft.jsonl", DEMONSTRATIONS, "prompt-response")],
        "parents": {"base": base},
    }
    pairs = entry(tmp_path / "pairs.jsonl", PAIRS, "chosen-rejected")
    held_out = entry(tmp_path / "dev.jsonl", PROMPTS, "prompt", role="eval")
    return {"stage": "reward", "data": [pairs, held_out], "parents": {"base": sft}}


def test_texts_are_equal_up_to_spaces_and_composition():
    assert normalised(unicodedata.normalize("NFD", " 비\n 좋아요?\t")) == "비 좋아요?"


def test_prompts_and_answers_of_the_model_and_its_parents_are_found(tmp_path):
    test = asking("비  좋아요? ", "밥 먹었어요?", "책 있어요?", answers=("싫어.", "아직이요."))
    found = leakage(test, nested(tmp_path))
    section = found.section
    assert found.prompts == {"비 좋아요?", "밥 먹었어요?"}  # the eval file does not count
    assert (section["num_prompts"], section["num_prompts_seen"]) == (3, 2)
    assert (section["num_answers"], section["num_answers_seen"]) == (2, 2)
    assert [(each["model"], each["num_prompts"], each["num_answers"]) for each in section["checked"]] == [
        ("model", 1, 1),
        ("base", 1, 1),
    ]
    assert section["examples"] == sorted(found.prompts)
    assert [each["path"] for each in section["not_checked"]] == ["base/model"]


def test_only_the_last_user_turn_is_compared(tmp_path):
    talk = (Message("user", "비 좋아요?"), Message("assistant", "네."), Message("user", "왜요?"))
    found = leakage([Ranking(talk, ("새 답이에요.", "또 다른 답."), (1, 2))], nested(tmp_path))
    assert found.prompts == set()


def test_rows_beyond_those_training_used_do_not_count(tmp_path):
    manifest = nested(tmp_path)
    manifest["data"][0]["num_kept"] = 1
    assert leakage(asking("비 좋아요?", "눈 좋아요?"), manifest).prompts == {"비 좋아요?"}
    assert len(training_rankings(manifest)) == 1


def test_files_that_changed_or_are_gone_are_named(tmp_path):
    manifest = nested(tmp_path)
    (tmp_path / "sft.jsonl").unlink()
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIRS[0], ensure_ascii=False), encoding="utf-8")
    found = leakage(asking("비 좋아요?"), manifest)
    assert found.prompts == set()
    assert found.section["checked"] == []
    reasons = {each["path"]: each["reason"] for each in found.section["not_checked"]}
    assert "changed" in reasons[str(tmp_path / "pairs.jsonl")]
    assert reasons[str(tmp_path / "sft.jsonl")] == "no such file"
    assert training_rankings(manifest) == []


def test_a_model_without_manifest_cannot_be_checked():
    found = leakage(asking("비 좋아요?"), None)
    assert found.section["not_checked"] == [{"path": "", "reason": "the model has no manifest.json"}]
    assert training_rankings(None) == []


def test_a_prompt_file_of_ppo_has_prompts_and_no_answers(tmp_path):
    data = [entry(tmp_path / "prompts.jsonl", PAIRS, "chosen-rejected")]
    found = leakage(asking("눈 좋아요?", answers=("네.", "싫어.")), {"stage": "ppo", "data": data, "parents": {}})
    assert found.prompts == {"눈 좋아요?"}
    assert found.section["num_answers_seen"] == 0


def test_training_rankings_are_the_models_own(tmp_path):
    assert [ranking.responses for ranking in training_rankings(nested(tmp_path))] == [
        ("네, 좋아요!", "몰라."),
        ("네.", "싫어."),
    ]


def test_training_rows_are_the_models_own_rankings_and_all_questions(tmp_path):
    """As `training_rankings`; the questions are also those of the parent's demonstrations."""
    manifest = nested(tmp_path)
    found = training_rows(manifest)
    assert found.rankings == training_rankings(manifest)
    assert len(found.rankings) == 2
    (tmp_path / "pairs.jsonl").unlink()
    rest = training_rows(manifest)
    assert (rest.rankings, rest.unread) == ([], [f"{tmp_path}/pairs.jsonl: no such file"])
    assert rest.questions
    assert rest.questions < found.questions
    assert training_rows(None) == ([], set(), ["it has no manifest"])
