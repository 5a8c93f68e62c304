"""The quickstart's figures on a tiny reward model, and its summary on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.data.encode import Encoder
from rlhf.data.records import Message, Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.demo.measure import PRINTED, answer_figures, print_summary
from rlhf.evaluate.answers.measures import MEASURES
from rlhf.evaluate.answers.policy import GeneratedAnswer
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
        "ppo": {"before": before, "after": after, "num_prompts": 9, "kl": 1.5, "samples": []},
        "reward": {**reward, "longer_answer_accuracy": 0.625},
        "sft": {"eval_loss_before": 3.0, "eval_loss": 2.0},
        "seconds": 61.0,
    }
    print_summary(summary, tmp_path)
    text = capsys.readouterr().out
    for name in PRINTED:
        assert f"{before[name]:.3f}" in text
        assert f"{after[name]:.3f}" in text
    assert "polite sentences" in text
    assert "0.750 [0.500, 1.000]" in text
    assert "pick the longer answer 0.625" in " ".join(text.split())
