"""Rows of preference optimisation: verdicts, answers of other prompts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.config.schema import DpoConfig
from rlhf.data.encode import EncodedRanking
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.errors import DataError
from rlhf.train.preference.data import answers_of_others, load_preferences

THUMBS = [
    {"messages": [{"role": "user", "content": f"{word} 어때요?"}, {"role": "assistant", "content": f"{word} 좋아요."}]}
    | {"rating": rating, "model": "m", "source": "chat-votes"}
    for word, rating in (("비", "up"), ("눈", "down"), ("밥", "down"))
]
RANKED = {"prompt": "차 좋아요?", "responses": ["네!", "음.", "글쎄요.", "몰라."], "ranks": [1, 2, 3, 3]}


class Spoken:
    """A run that keeps what it says."""

    def __init__(self, config: DpoConfig) -> None:
        self.config, self.lines = config, list[str]()

    def say(self, text: str) -> None:
        self.lines.append(text)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run_on(path: str, **dpo: Any) -> Any:
    return Spoken(DpoConfig.model_validate({"data": {"train": path, "max_length": 128}, "dpo": dpo}))


def test_thumbs_and_labels_are_verdicts(tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    run = run_on(write(tmp_path / "ratings.jsonl", THUMBS), loss="kto")
    data = load_preferences(run, chat_tokenizer)
    assert [item.good for item in data.train.items] == [(True,), (False,), (False,)]
    assert [chat_tokenizer.text(item.answers[0].tolist()) for item in data.train.items] == [
        "비 좋아요.",
        "눈 좋아요.",
        "밥 좋아요.",
    ]
    assert any("1 good answers, 2 bad" in line for line in run.lines)
    assert [prompt.text for prompt in data.prompts] == ["비 어때요?", "눈 어때요?", "밥 어때요?"]
    labels = [{"prompt": "비 와요?", "completion": "네.", "label": value} for value in (True, False)]
    found = load_preferences(run_on(write(tmp_path / "labels.jsonl", labels), loss="kto"), chat_tokenizer)
    assert [item.good for item in found.train.items] == [(True,), (False,)]


def test_the_ends_of_a_ranking_are_verdicts(tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    run = run_on(write(tmp_path / "ranked.jsonl", [RANKED]), loss="kto")
    (item,) = load_preferences(run, chat_tokenizer).train.items
    assert item.good == (True, False, False)  # the second of four is between
    assert [chat_tokenizer.text(each.tolist()) for each in item.answers] == ["네!", "글쎄요.", "몰라."]


def test_answers_of_one_kind_are_said(tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    run = run_on(write(tmp_path / "down.jsonl", THUMBS[1:]), loss="kto")
    assert len(load_preferences(run, chat_tokenizer).train.items) == 2
    assert any("every answer is bad" in line for line in run.lines)


def test_an_answer_without_a_label_is_refused_with_its_line(tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    rows = [THUMBS[0], {key: value for key, value in THUMBS[1].items() if key != "rating"}]
    path = write(tmp_path / "bare.jsonl", rows)
    with pytest.raises(DataError, match=r"bare\.jsonl:2  key `label`: no label says whether the answer is good"):
        load_preferences(run_on(path, loss="kto"), chat_tokenizer)
    with pytest.raises(DataError, match="which has no Ranking"):
        load_preferences(run_on(path), chat_tokenizer)  # single answers hold no pair


def test_rankings_without_an_untied_pair_are_refused(tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    tied = write(tmp_path / "tied.jsonl", [RANKED | {"ranks": [1, 1, 1, 1]}])
    with pytest.raises(DataError, match="none of 1 rows can be used: 0 bad, 1 rankings in which all answers tie"):
        load_preferences(run_on(tied), chat_tokenizer)
    alike = write(tmp_path / "alike.jsonl", [{"prompt": "비?", "responses": ["네.", "네."], "ranks": [1, 2]}])
    with pytest.raises(DataError, match="none of the training rankings can be used; 1 answers alike; 1 rows without"):
        load_preferences(run_on(alike), chat_tokenizer)


def test_a_row_keeps_at_most_max_answers_with_both_verdicts(tmp_path: Path, chat_tokenizer: ChatTokenizer) -> None:
    many = RANKED | {"responses": [f"답 {number}" for number in range(6)], "ranks": [1, 1, 1, 1, 1, 2]}
    run = run_on(write(tmp_path / "many.jsonl", [many]), loss="kto")
    run.config = run.config.model_copy(update={"data": run.config.data.model_copy(update={"max_answers": 2})})
    (item,) = load_preferences(run, chat_tokenizer).train.items
    assert sorted(item.good) == [False, True]


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


def test_another_prompts_answer_is_that_of_the_next_row_with_another_prompt() -> None:
    """Rows 0 and 1 share a prompt; the last row goes on at the first. Row 3 takes its second answer of two."""
    items = [
        EncodedRanking(ids(1), (ids(10), ids(11)), (1, 2)),
        EncodedRanking(ids(1), (ids(12), ids(13)), (1, 2)),
        EncodedRanking(ids(2), (ids(14, 15, 16), ids(17)), (1, 2)),
        EncodedRanking(ids(3, 4), (ids(18), ids(19)), (1, 2)),
    ]
    found = [(prompt.tolist(), answer.tolist()) for prompt, (answer,) in answers_of_others(items, 3)]
    assert found == [
        ([1], [14, 15]),  # row 2's first, cut to three tokens of both
        ([1], [17]),  # row 2's second
        ([2], [18]),
        ([3, 4], [11]),
    ]
    alone = answers_of_others(items[:2], 3)
    assert [answer.tolist() for _, (answer,) in alone] == [[12], [11]]  # the next row, where none has another prompt


@pytest.mark.parametrize(
    ("dpo", "message"),
    [
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing = 0.1 has no meaning with loss = ipo"),
        ({"loss": "simpo", "reference_from": "runs/a"}, "loss = simpo has no reference"),
        ({"loss": "kto", "good_weight": 0, "bad_weight": 0}, "nothing is learnt"),
        ({"kl_prompts": 0, "max_kl": 5}, "max_kl = 5.0 has nothing to judge by"),
        ({"max_kl": 5}, "data.eval is empty"),
        ({"kl_prompts": 4}, "cannot hold a prompt and an answer sampled for the KL"),
    ],
)
def test_keys_that_contradict_one_another_are_refused(dpo: dict[str, Any], message: str) -> None:
    train = {"micro_tokens": 300} if dpo == {"kl_prompts": 4} else {}
    with pytest.raises(ValueError, match=message):
        DpoConfig.model_validate({"dpo": dpo, "train": train, "data": {"max_length": 200}})


def test_beta_has_a_default_of_its_own_in_each_loss() -> None:
    betas = {loss: DpoConfig.model_validate({"dpo": {"loss": loss}}).dpo.strength for loss in ("sigmoid", "simpo")}
    assert betas == {"sigmoid": 0.1, "simpo": 2.0}
    assert DpoConfig.model_validate({"dpo": {"loss": "simpo", "beta": 0.3}}).dpo.strength == 0.3
