"""The quickstart's figures on a tiny reward model, and its summary on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.artifacts.files import write_json
from rlhf.data.encode import EncodedPrompt, Encoder
from rlhf.data.records import Message, Prompt, Ranking
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.demo.measure import answer_figures, best_of_summary, samples, world_summary
from rlhf.demo.measure_reward import differs_in_topic
from rlhf.demo.printed import PRINTED, print_summary
from rlhf.demo.world.rules import korean_rules
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.answers.policy import GeneratedAnswer
from rlhf.evaluate.reward.accuracy import Pair
from rlhf.models.loading import load_scalar_model


def test_figures_are_the_measures_and_the_mean_score(tiny_reward: Path, chat_tokenizer: ChatTokenizer) -> None:
    (prompt,) = Encoder(chat_tokenizer, 128).prompts([Prompt((Message("user", "점심 어때?"),), "")])
    answers = [
        GeneratedAnswer(prompt, np.asarray(ids, np.int32), text, finished)
        for text, finished in (("네, 좋아요.", True), ("몰라", False), ("응.", True))
        for ids in chat_tokenizer.token_ids([text])
    ]
    found = answer_figures(answers, load_scalar_model(str(tiny_reward)))
    assert (found["polite"], found["eos"], found["num_answers"]) == (0.3333, 0.6667, 3)
    assert found["length_chars"] == round((7 + 2 + 2) / 3, 4)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward).eval()
    with torch.no_grad():
        scores = [float(plain(torch.tensor([[*prompt.ids, *each.ids]])).logits) for each in answers]
    assert found["reward"] == pytest.approx(sum(scores) / 3, abs=1e-5)
    assert set(PRINTED) <= {*MEASURES, "reward"} <= found.keys()


def test_the_summary_names_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before: dict[str, Any] = {name: place + 0.125 for place, name in enumerate(PRINTED)}
    after = {name: value + 100 for name, value in before.items()}
    reward = {"accuracy": 0.75, "accuracy_interval": [0.5, 1.0], "accuracy_neighbours": 0.7}
    summary = {
        "ppo": {
            "before": before,
            "after": after,
            "num_prompts": 9,
            "kl": 1.5,
            "best_of_16": {
                "mean": 4.5,
                "kl": 1.8351,
                "ppo_mean": 5.5,
                "ppo_kl": 3.25,
                "sft_mean": -1.0,
                "num_prompts": 7,
            },
            "samples": [
                {"prompt": "가방을 잃어버렸어요.", "gloss": "I lost my bag.", "before": "몰라.", "after": "가방은요?"}
            ],
        },
        "reward": {
            **reward,
            "longer_answer_accuracy": 0.625,
            "accuracy_topic": 0.875,
            "shortcut_ngram": 0.55,
            "verdict": "It beats.",
        },
        "sft": {"eval_loss_before": 3.0, "eval_loss": 2.0},
        "fluency": {"before": 0.9713, "after": 0.9914},
        "on_topic": {"before": 0.8615, "after": 0.9216},
        "answers_prompt": {"before": 0.7117, "after": 0.8118},
        "rude_lines": {"before": 0.2319, "after": 0.0321},
        "replacement_characters": {"before": 4, "after": 0},
        "seconds": 61.0,
        "cpu_seconds": 83.0,
    }
    print_summary(summary, tmp_path)
    text = capsys.readouterr().out
    for name in PRINTED:
        assert f"{before[name]:.3f}" in text
        assert f"{after[name]:.3f}" in text
    assert "polite sentences" in text
    assert "0.750 [0.500, 1.000]" in text
    words = " ".join(text.split())
    assert "pick the longer answer 0.625" in words
    assert "0.875 on pairs that differ in topic alone; character n-grams 0.550 on all pairs. It beats." in words
    for shown in ("0.971 │ 0.991", "0.862 │ 0.922", "0.712 │ 0.812", "0.232 │ 0.032", "SFT 4, PPO 0"):
        assert shown in words
    assert "PPO 5.50 at 3.25 nats, best-of-16 of the SFT model 4.50 at 1.84 nats, SFT -1.00" in words
    assert "가방을 잃어버렸어요. (I lost my bag.) SFT: 몰라. PPO: 가방은요?" in words
    assert "61 s in all, 83 s of processors" in words


def drawn(prompts: list[str], texts: list[str]) -> list[GeneratedAnswer]:
    """Answers with texts alone, as many to each prompt as there are."""
    each = len(texts) // len(prompts)
    ids = np.zeros(1, np.int32)
    asked = [EncodedPrompt(ids, 0, (Message("user", prompt),)) for prompt in prompts for _ in range(each)]
    return [GeneratedAnswer(prompt, ids, text, True) for prompt, text in zip(asked, texts, strict=True)]


def test_the_rules_are_applied_to_both_policies() -> None:
    before = drawn(
        ["가방을 잃어버렸어요."],
        [
            "가방은 집부터 다시 찾아봐.",
            "지갑은 집부터 다시 찾아봐.",
            "가방 하나 못 챙기냐, 한심하다.",
            "가방은 껐다 켜 \ufffd\ufffd.",
        ],
    )
    after = drawn(["가방을 잃어버렸어요."], ["가방은 꼭 다시 찾으실 수 있을 거예요."])
    assert world_summary({"before": before, "after": after}, own=False) == {
        "fluency": {"before": (4 + 4 + 5 + 3) / 16, "after": 1.0},  # of the last answer the marks are no word
        "on_topic": {"before": 0.75, "after": 1.0},
        "answers_prompt": {"before": 0.5, "after": 1.0},
        "rude_lines": {"before": 0.25, "after": 0.0},
        "replacement_characters": {"before": 2, "after": 0},
    }
    own = world_summary({"before": before, "after": after}, own=True)  # the demo's rules know nothing of other data
    assert own.pop("replacement_characters") == {"before": 2, "after": 0}
    assert {*own.values()} == {None}


def test_an_answer_of_each_policy_is_shown_to_each_prompt() -> None:
    prompts = ["가방을 잃어버렸어요.", "내일 뭐 해?"]
    before, after = (drawn(prompts, [f"{name}{number}" for number in range(8)]) for name in "ab")
    assert samples({"before": before, "after": after}) == [
        {"prompt": prompts[0], "gloss": "I lost my bag.", "before": "a0", "after": "b0"},
        {"prompt": prompts[1], "gloss": "", "before": "a4", "after": "b4"},
    ]


def test_best_of_16_is_that_of_the_control_group(tmp_path: Path) -> None:
    assert best_of_summary(tmp_path / "control.json") is None
    arms = [{"n": 4, "mean": 1.0, "kl": 0.64}, {"n": 16, "mean": 2.0, "kl": 1.84}]
    card = {"best_of_n": arms, "policy": {"mean": 3.0, "kl": 5.0}, "reference": {"mean": -1.0}, "num_prompts": 40}
    write_json(tmp_path / "control.json", card)
    assert best_of_summary(tmp_path / "control.json") == {
        "mean": 2.0, "kl": 1.84, "ppo_mean": 3.0, "ppo_kl": 5.0, "sft_mean": -1.0, "num_prompts": 40
    }  # fmt: skip
    write_json(tmp_path / "control.json", {**card, "best_of_n": arms[:1]})
    assert best_of_summary(tmp_path / "control.json") is None


def test_pairs_of_one_register_and_two_topics_differ_in_topic_alone() -> None:
    answers = (
        "가방은 꼭 다시 찾으실 수 있을 거예요.",  # warm, about the bag
        "가방은 집부터 다시 찾아봐.",  # casual, about the bag
        "지갑은 꼭 다시 찾으실 수 있을 거예요.",  # warm, about a wallet
        "지갑은 집부터 다시 찾아봐.",
    )
    ranking = Ranking((Message("user", "가방을 잃어버렸어요."),), answers, (1, 2, 3, 4))
    found = {
        (better, worse)
        for better in range(4)
        for worse in range(better + 1, 4)
        if differs_in_topic(ranking, Pair(better, worse, worse - better), korean_rules())
    }
    assert found == {(0, 2), (1, 3)}
