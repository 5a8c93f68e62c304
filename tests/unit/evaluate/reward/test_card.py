"""The test set of a report card, its scores, and the card made of them."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.cli import main
from rlhf.data.encode import EncodedRanking
from rlhf.data.records import Message, Ranking
from rlhf.errors import ModelError
from rlhf.evaluate.reward.accuracy import ScoredRanking
from rlhf.evaluate.reward.card import build_reward_card, probe_section
from rlhf.evaluate.reward.card_plots import accuracy_plot, page_values
from rlhf.evaluate.reward.probes import ProbeInputs
from rlhf.evaluate.reward.scoring import tree_scores
from rlhf.evaluate.reward.test_set import build_test_set, distinct_answers, divided, score_test_set
from rlhf.html.templates import render
from rlhf.html.words import Words
from rlhf.models.loading import load_scalar_model

SECTIONS = {
    *("accuracy", "low", "high", "num_pairs", "num_rankings", "neighbours", "by_source", "longer_answer"),
    *("by_length", "by_k", "by_rank_gap", "calibration", "length_correlation", "kendall", "probes"),
    *("shortcuts", "leakage", "num_without_pair"),
}


def rankings() -> list[Ranking]:
    return [
        Ranking(
            (Message("user", f"{thing} 어때요?"),),
            (f"{thing}는 정말 좋아요! 추천해요.", f"{thing}는 몰라.", f"{thing} 그냥 그래요."),
            (1, 3, 2),
            "날씨" if thing == "비" else "생활",
        )
        for thing in ("비", "밥", "책", "꽃")
    ]


def by_length(trees):
    """A model that pays for tokens."""
    return [[float(len(answer)) for answer in answers] for _, answers in trees]


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def test_of_answers_alike_the_best_ranked_is_kept():
    item = EncodedRanking(ids(1), (ids(5), ids(6), ids(5), ids(7)), (3, 2, 1, 4))
    assert distinct_answers(item) == [1, 2, 3]


def test_a_large_tree_is_asked_in_parts():
    tree = (ids(1, 1), [ids(2, 2), ids(3), ids(4, 4), ids(5, 5, 5, 5)])
    parts = divided(tree, 5)  # three tokens beside the prompt
    assert [[each.tolist() for each in answers] for _, answers in parts] == [[[2, 2], [3]], [[4, 4]], [[5, 5, 5, 5]]]
    assert all(prompt.tolist() == [1, 1] for prompt, _ in parts)
    assert len(divided(tree, 11)) == 1


def test_parts_change_no_score(chat_tokenizer):
    test_set = build_test_set(rankings(), chat_tokenizer, 200)
    assert score_test_set(test_set, by_length, max_tokens=10_000) == score_test_set(test_set, by_length, max_tokens=1)


def test_rows_whose_answers_are_alike_have_no_pair(chat_tokenizer):
    alike = Ranking((Message("user", "네?"),), ("네.", "네."), (1, 2))
    test_set = build_test_set([alike, *rankings()], chat_tokenizer, 200)
    assert (len(test_set.rankings), test_set.num_without_pair) == (4, 1)


def test_a_score_that_is_not_finite_is_an_error(chat_tokenizer):
    test_set = build_test_set(rankings(), chat_tokenizer, 200)
    with pytest.raises(ModelError, match="not finite"):
        score_test_set(test_set, lambda trees: [[math.nan] * len(answers) for _, answers in trees], max_tokens=10_000)


def test_a_probe_of_the_better_answer_by_hand():
    # scores 3 1 2 for ranks 1 2 3: pairs (0,1) right, (0,2) right, (1,2) wrong
    rows = [ScoredRanking((1, 2, 3), (3.0, 1.0, 2.0)), ScoredRanking((1, 2), (1.0, 0.0))]
    probe = ProbeInputs("half", "answers", [0], [[0, 1]], [])
    found = probe_section(probe, rows, [[1.5, 2.5]])  # 3 -> 1.5, 1 -> 2.5
    # after: 1.5 > 1 right, 1.5 < 2 wrong (flipped), 2.5 > 2 right (flipped)
    assert found == {
        "applied_to": "the better answer",
        "num_rankings": 1,
        "num_pairs": 3,
        "accuracy_before": pytest.approx(2 / 3),
        "accuracy": pytest.approx(2 / 3),
        "mean_score_change": pytest.approx((-1.5 + 1.5) / 2),
        "share_flipped": pytest.approx(2 / 3),
        "share_preferred_over_original": 0.5,
    }


def test_a_probe_of_the_prompt_by_hand():
    rows = [ScoredRanking((1, 2), (0.0, 0.0)), ScoredRanking((1, 2), (3.0, 1.0)), ScoredRanking((2, 1), (3.0, 1.0))]
    probe = ProbeInputs("space", "prompt", [1, 2], [[0, 1], [0, 1]], [])
    found = probe_section(probe, rows, [[2.0, 4.0], [4.0, 0.0]])  # right -> wrong, wrong -> wrong
    assert (found["accuracy_before"], found["accuracy"], found["share_flipped"]) == (0.5, 0.0, 0.5)
    assert found["mean_score_change"] == pytest.approx((-1 + 3 + 1 - 1) / 4)
    assert "share_preferred_over_original" not in found


def test_the_card_of_a_model_that_pays_for_length(chat_tokenizer):
    test_set = build_test_set(rankings(), chat_tokenizer, 200)
    scores = score_test_set(test_set, by_length, max_tokens=10_000)
    card = build_reward_card(test_set, scores, training=rankings(), manifest=None)
    assert card.keys() == SECTIONS
    assert card["num_rankings"] == 4
    assert card["num_pairs"] == 12
    assert card["accuracy"] == card["longer_answer"]["accuracy"]
    assert card["length_correlation"]["pearson"] == pytest.approx(1)
    assert card["probes"]["closing"]["share_preferred_over_original"] == 1
    assert card["probes"]["twice"]["share_preferred_over_original"] == 1
    assert card["probes"]["half"]["share_preferred_over_original"] == 0
    assert card["probes"]["no_eos"]["mean_score_change"] == pytest.approx(-1)
    assert card["probes"]["empty"]["accuracy"] == 0
    assert card["probes"]["trailing_space"]["mean_score_change"] == 0
    assert card["shortcuts"]["beats_shortcuts"] is False
    json.dumps(card, allow_nan=False)


def test_the_card_of_no_rankings(chat_tokenizer):
    test_set = build_test_set([], chat_tokenizer, 200)
    card = build_reward_card(test_set, score_test_set(test_set, by_length, max_tokens=9), training=[], manifest=None)
    assert card == {"num_rankings": 0, "num_without_pair": 0}


def test_the_page_shows_hangul_as_text_and_fetches_nothing(chat_tokenizer):
    test_set = build_test_set(rankings(), chat_tokenizer, 200)
    scores = score_test_set(test_set, by_length, max_tokens=10_000)
    card = build_reward_card(test_set, scores, training=rankings(), manifest=None)
    card |= {"model": "runs/<reward>", "data": ["시험.jsonl"]}
    page = render("evaluate/reward/page.html.j2", report=card, **page_values(card))
    assert page.count("<svg") == 6  # three plots in two languages
    plots = page[page.index("<svg") :]
    assert "출처: 날씨</text>" in plots
    assert "source: 날씨</text>" in plots  # text, not outlines
    assert "runs/&lt;reward&gt;" in page
    assert "src=" not in page
    assert "width=device-width" in page
    assert card["shortcuts"]["verdict"] in page


def test_tree_scores_are_those_of_plain_transformers(tiny_reward, chat_tokenizer):
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward).eval()
    trees = build_test_set(rankings(), chat_tokenizer, 200).trees
    done: list[int] = []
    found = tree_scores(load_scalar_model(str(tiny_reward)), trees, done.append)
    assert sum(done) == len(trees)
    for (prompt, answers), scores in list(zip(trees, found, strict=True))[::5]:
        for answer, score in zip(answers, scores, strict=True):
            whole = torch.tensor(np.concatenate([prompt, answer]), dtype=torch.int64)[None]
            with torch.no_grad():
                assert score == pytest.approx(float(plain(whole).logits), abs=1e-5)


def write_rankings(path):
    rows = [{"prompt": each.prompt[0].content, "responses": each.responses, "ranks": each.ranks} for each in rankings()]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_command_writes_card_and_page(tiny_reward, tmp_path, capsys):
    data = write_rankings(tmp_path / "시험.jsonl")
    words = ["--model", str(tiny_reward), "--data", data, "--out", str(tmp_path / "report"), "--limit", "3"]
    assert main(["evaluate", "reward", *words]) == 0
    card = json.loads((tmp_path / "report" / "report_card.json").read_text(encoding="utf-8"))
    assert card["num_rankings"] == 3
    assert card.keys() == SECTIONS | {"model", "data"}
    assert card["by_source"].keys() == {"시험"}
    assert "character_ngrams" in card["shortcuts"]["notes"]  # no manifest, no training data
    assert "<svg" in (tmp_path / "report" / "report_card.html").read_text(encoding="utf-8")
    assert f"{card['accuracy']:.3f}" in capsys.readouterr().out


def test_the_commands_flag_decides_the_type_of_the_weights(tiny_reward, tmp_path):
    data, cards = write_rankings(tmp_path / "rows.jsonl"), []
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        words = ["--model", str(tiny_reward), "--data", data, "--out", str(out), "--dtype", dtype]
        assert main(["evaluate", "reward", *words]) == 0
        cards.append(json.loads((out / "report_card.json").read_text(encoding="utf-8")))
    assert cards[0]["calibration"] != cards[1]["calibration"]  # scores are rounded


def test_without_matplotlib_nothing_is_read_or_scored(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("rlhf.errors.find_spec", lambda name: None)
    words = ["--model", "nowhere/model", "--data", "demo:rankings_dev", "--out", str(tmp_path / "report")]
    assert main(["evaluate", "reward", *words]) == 1
    assert "pip install -e '.[report]'" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_model_that_prefers_empty_answers_is_called_so(chat_tokenizer):
    test_set = build_test_set(rankings(), chat_tokenizer, 200)
    scores = score_test_set(test_set, by_length, max_tokens=10_000)
    card = build_reward_card(test_set, scores, training=rankings(), manifest=None)
    card["shortcuts"]["beats_shortcuts"] = True
    for share, said in ((0.1, False), (0.34, True)):
        card["probes"]["empty"]["share_preferred_over_original"] = share
        page = render("evaluate/reward/page.html.j2", report=card, **page_values(card))
        assert ("For 34% of the answers the model scores an empty answer above" in page) == said
        assert ("답변의 34%에서" in page) == said
        assert ('class="verdict good"' in page) != said


def test_a_dot_at_the_end_of_the_axis_is_whole():
    """The axis goes on past 1, or half of a dot at 1.0 would be clipped away."""
    group = (Words("모든 쌍", "all pairs"), {"accuracy": 1.0, "low": 0.9, "high": 1.0})
    drawn = accuracy_plot([group], "en")
    left, width = map(float, re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn).groups())
    (dot,) = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="[\d.]+" style="fill: #2f5d8c', drawn)
    assert float(dot) + 3 <= left + width  # 3 points is half of a dot
