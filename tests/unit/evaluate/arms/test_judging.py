"""Arms judged on the same prompts: scores and KL against plain transformers, and nothing computed twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config.sections import SamplingSection
from rlhf.data.encode import Encoder
from rlhf.data.records import Message, Prompt
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.evaluate.arms import judging
from rlhf.evaluate.arms.judging import JudgeRequest, judge_arms, sampled_ratios, topic_shares
from rlhf.models.scoring import answer_scores, load_scorer
from tests.conftest import SHAPE, _saved

ASKED = ["오늘 날씨 어때?", "점심에 뭘 먹을까?", "책은 어디서 사요?"]
SAMPLING = SamplingSection(max_new_tokens=6, max_prompt_tokens=96, batch_size=4, temperature=0.7)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory, chat_tokenizer: ChatTokenizer) -> dict[str, str]:
    """Two models of one tokenizer."""
    from transformers import GPTNeoXForCausalLM

    from rlhf.demo.tiny_base import polyglot_shape

    found = {}
    for seed, name in enumerate(("sft", "ppo"), 5):
        folder = tmp_path_factory.mktemp(name)
        _saved(
            GPTNeoXForCausalLM,
            polyglot_shape(SHAPE, len(chat_tokenizer.tokenizer)),
            folder,
            chat_tokenizer.tokenizer,
            seed=seed,
        )
        chat_tokenizer.save(folder)
        found[name] = str(folder)
    return found


@pytest.fixture
def request_(tmp_path: Path, policies: dict[str, str], tiny_reward: Path) -> JudgeRequest:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": each}, ensure_ascii=False) + "\n" for each in ASKED))
    return JudgeRequest(policies, str(tiny_reward), str(prompts), None, 2, SAMPLING, 3, tmp_path / "judged")


def test_kl_is_the_log_ratio_of_answers_at_temperature_1(policies: dict[str, str]) -> None:
    """Both models by plain transformers, on the answers that were drawn: whatever temperature is set."""
    prompts = [Prompt((Message("user", each),)) for each in ASKED]
    (found,) = sampled_ratios([policies["ppo"]], policies["sft"], prompts, SAMPLING, seed=9)
    tokenizer = load_tokenizer(policies["ppo"])
    encoded = Encoder(tokenizer, 96).prompts(prompts)
    whole = SAMPLING.model_copy(update={"temperature": 1.0})
    drawn = judging.answer_prompts(judging._policy(policies["ppo"]), tokenizer, encoded, whole, seed=9)
    expected = []
    for answer in drawn:
        ids = torch.tensor(np.concatenate([answer.prompt.ids, answer.ids])[None].astype(np.int64))
        sums = {}
        for name, folder in policies.items():
            with torch.no_grad():
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
                logprobs = model(ids).logits[0, :-1].log_softmax(-1)
            taken = logprobs.gather(1, ids[0, 1:, None])[:, 0]
            sums[name] = float(taken[len(answer.prompt.ids) - 1 :].sum())
        expected.append(sums["ppo"] - sums["sft"])
    assert found == pytest.approx(expected, abs=1e-4)  # sums of six log-probabilities in float32
    assert np.abs(found).min() > 0.01
    (same,) = sampled_ratios([policies["sft"]], policies["sft"], prompts, SAMPLING, seed=9)
    assert same == pytest.approx([0.0] * 3)


def test_every_arm_is_asked_alike_and_scored_by_the_judge(request_: JudgeRequest, tiny_reward: Path) -> None:
    found = judge_arms(request_)
    generations, judged = found.generations, found.arms
    assert list(judged) == [each.name for each in generations.sets] == ["sft", "ppo"]
    assert [len(each.answers) for each in generations.sets] == [3, 3]
    assert np.all(judged["sft"].kl == 0)
    assert judged["ppo"].kl.shape == (3,)
    scorer = load_scorer(str(tiny_reward), key="judge.model")
    for arm, each in zip(judged.values(), generations.sets, strict=True):
        for row, prompt in enumerate(generations.prompts):
            before, answers = scorer.tree(prompt.messages, each.answers[row], each.finished[row])
            alone = answer_scores(scorer.model, [(before, answer) for answer in answers])
            assert arm.scores[row] == pytest.approx(sum(alone) / 2, abs=1e-4)


def test_the_same_model_gives_the_same_answers_under_another_name(request_: JudgeRequest) -> None:
    """Random streams do not depend on the arm, so that arms are paired."""
    sft = request_.models["sft"]
    found = judge_arms(replace(request_, models={"sft": sft, "dpo": f"{sft}/."}))
    generations, judged = found.generations, found.arms
    assert generations.sets[0].answers == generations.sets[1].answers
    assert judged["sft"].scores.tolist() == judged["dpo"].scores.tolist()
    assert judged["dpo"].kl == pytest.approx(np.zeros(3), abs=1e-6)


def test_nothing_is_computed_twice(request_: JudgeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    before = judge_arms(request_).arms

    def fails(*_: object, **__: object) -> None:
        raise AssertionError("loaded again")

    with monkeypatch.context() as patched:
        for name in ("load_scorer", "load_causal_lm"):
            patched.setattr(judging, name, fails)
        again = judge_arms(request_).arms
        assert again["ppo"].scores.tolist() == before["ppo"].scores.tolist()
        assert again["ppo"].kl.tolist() == before["ppo"].kl.tolist()
        with pytest.raises(AssertionError, match="loaded again"):
            judge_arms(replace(request_, seed=4))
    fewer = judge_arms(replace(request_, limit=2)).arms
    assert len(fewer["sft"].scores) == 2


def test_topic_shares_are_of_the_answers_to_a_prompt() -> None:
    prompts = [Prompt((Message("user", "비"),)), Prompt((Message("user", "눈"),))]
    shares = topic_shares(lambda prompt, text: prompt in text, prompts, [["비 와요.", "몰라."], ["눈 와요.", "눈!"]])
    assert shares.tolist() == [0.5, 1.0]
