"""Answers scored by a reward model: all with their scores, or the best as a demonstration; continued after a crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.cli import main
from rlhf.curate.output import manifest_path
from rlhf.curate.sample import sampler
from rlhf.curate.sample.sampler import best_answer
from rlhf.data.encode import Encoder
from rlhf.data.records import Demonstration, Message, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.models.scoring import RewardScorer
from tests.support.openai_server import Behaviour, serve

PROMPTS = ["오늘 날씨 어때?", "점심에 뭘 먹을까?", "심심해."]
SAID = ["맑아요!", "비가 와요.", "흐려."]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def expected(tiny_reward: Path, chat_tokenizer: ChatTokenizer) -> dict[tuple[str, str], float]:
    """The score of each answer to each prompt by plain transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward).eval()
    found = {}
    for prompt in PROMPTS:
        for answer in SAID:
            turns = (Message("user", prompt), Message("assistant", answer))
            ids = Encoder(chat_tokenizer, 512).demonstrations([Demonstration(turns)])[0].ids
            with torch.no_grad():
                hidden = model.gpt_neox(torch.tensor(ids[None]).long()).last_hidden_state[0, -1]
                found[prompt, answer] = float(model.score(hidden))
    return found


def sampled(prompts: Path, reward: Path, out: Path, said: Sequence[str], *flags: str, status: int = 0) -> list[str]:
    """`data sample` of an endpoint that gives each prompt the answers `said` in some order; which prompts it got."""
    left: dict[str, list[str]] = {}

    def answer(body: Any) -> str:
        return left.setdefault(body["messages"][-1]["content"], list(said)).pop()

    with serve(Behaviour(answer=answer)) as server:
        words = ["--endpoint", server.url, "--endpoint-model", "m", "--k", str(len(said)), "--score", str(reward)]
        assert main(["data", "sample", "--prompts", str(prompts), *words, *flags, "--out", str(out)]) == status
        return [body["messages"][-1]["content"] for body in server.requests]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_answers_with_scores_are_a_ranking(
    tmp_path: Path, prompts: Path, tiny_reward: Path, expected: dict[tuple[str, str], float]
) -> None:
    out = tmp_path / "all.jsonl"
    sampled(prompts, tiny_reward, out, SAID)
    for row in rows_of(out):
        scores = [expected[row["prompt"], answer] for answer in row["responses"]]
        assert row["scores"] == pytest.approx(scores, abs=1e-4)
    rankings = read_records(DataSource(str(out)), Ranking).records
    for ranking in rankings:
        prompt = ranking.prompt[-1].content
        assert ranking.responses[ranking.best] == max(SAID, key=lambda answer: expected[prompt, answer])


def test_the_best_is_a_demonstration_and_ties_are_counted(
    tmp_path: Path, prompts: Path, tiny_reward: Path, expected: dict[tuple[str, str], float]
) -> None:
    """Each answer comes twice, so that the best one is tied with its double."""
    out = tmp_path / "best.jsonl"
    sampled(prompts, tiny_reward, out, SAID * 2, "--keep", "best")
    for row in rows_of(out):
        assert row["response"] == max(SAID, key=lambda answer: expected[row["prompt"], answer])
        assert sorted(row["rewards"]) == pytest.approx(
            sorted(2 * [expected[row["prompt"], answer] for answer in SAID]), abs=1e-4
        )
        assert (row["num_tied"], row["model"], row["source"]) == (1, "m", "prompts")
    read = read_records(DataSource(str(out)), Demonstration)
    assert [record.messages[0].content for record in read.records] == PROMPTS
    assert not read.report.unread  # nothing that stage 1 would mention
    manifest = json.loads(manifest_path(out).read_text())
    assert manifest["counts"]["prompts with tied best answers"] == 3
    assert manifest["options"]["keep"] == "best"
    assert manifest["options"]["score"]["model"] == str(tiny_reward)


def test_scores_that_an_interruption_left_are_not_computed_again(
    tmp_path: Path, prompts: Path, tiny_reward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt is stored at a time; the second is interrupted. Then nobody is asked, and two prompts are scored."""
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    sampled(prompts, tiny_reward, whole, SAID, "--concurrency", "1")
    monkeypatch.setattr(sampler, "PROMPTS_SCORED", 1)
    calls: list[int] = []
    real = RewardScorer.scores

    def power_cut(self: RewardScorer, trees: Any) -> Any:
        calls.append(len(trees))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, trees)

    monkeypatch.setattr(RewardScorer, "scores", power_cut)
    assert len(sampled(prompts, tiny_reward, broken, SAID, "--concurrency", "1", status=130)) == 9
    assert not broken.exists()
    changed = Path(f"{broken}.partial").read_text(encoding="utf-8").splitlines()
    assert sum('"scores"' in line for line in changed) == 1
    with serve(Behaviour()) as server:  # at another address, which is of no importance to what was stored
        text = Path(f"{broken}.partial").read_text(encoding="utf-8")
        before = json.loads(changed[0])["answerers"][0]["endpoint"]
        Path(f"{broken}.partial").write_text(text.replace(before, server.url), encoding="utf-8")
        words = ["--endpoint", server.url, "--endpoint-model", "m", "--k", "3", "--score", str(tiny_reward)]
        assert main(["data", "sample", "--prompts", str(prompts), *words, "--out", str(broken)]) == 0
        assert server.requests == []
    assert len(calls) == 2 + 2
    for one, other in zip(rows_of(broken), rows_of(whole), strict=True):
        assert one["responses"] == other["responses"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "usable", "expected"),
    [
        ([1.0, 3.0, 2.0], [True, True, True], (1, 0)),
        ([1.0, 3.0, 2.0], [True, False, True], (2, 0)),  # the best was cut
        ([3.0, 3.0, 3.0], [False, True, True], (1, 1)),
        ([3.0, 1.0], [False, False], None),
    ],
)
def test_the_first_of_the_best_finished_answers(
    scores: list[float], usable: list[bool], expected: tuple[int, int] | None
) -> None:
    assert best_answer(scores, usable) == expected


def test_prompts_without_a_finished_answer_are_dropped(
    tmp_path: Path, prompts: Path, tiny_neox: Path, tiny_reward: Path, chat_tokenizer: ChatTokenizer
) -> None:
    """Two tokens of a random model are no answer with EOS."""
    shutil.copytree(tiny_neox, tmp_path / "sft" / "model")
    chat_tokenizer.save(tmp_path / "sft" / "model")
    words = ["--model", str(tmp_path / "sft"), "--k", "2", "--max-new-tokens", "2", "--max-prompt-tokens", "128"]
    out = tmp_path / "best.jsonl"
    scored = ["--score", str(tiny_reward), "--keep", "best", "--out", str(out)]
    assert main(["data", "sample", "--prompts", str(prompts), *words, *scored]) == 0
    manifest = json.loads(manifest_path(out).read_text())
    assert (manifest["kept"], manifest["dropped"]) == (0, {"no finished answer": 3})


@pytest.mark.parametrize(
    ("flags", "said"), [(["--keep", "best"], "--score runs/reward"), (["--score", "runs/none"], "--score")]
)
def test_what_cannot_be_scored_is_said(
    tmp_path: Path, prompts: Path, tiny_neox: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompts", str(prompts), "--model", str(tiny_neox), "--out", str(tmp_path / "s.jsonl")]
    assert main(["data", "sample", *words, *flags]) == 1
    assert said in capsys.readouterr().err
