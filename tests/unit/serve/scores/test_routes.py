"""The routes for scores: stage 3's shape and vLLM's, over the real application."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from transformers import AutoModelForSequenceClassification

from rlhf.data.encode import Encoder
from rlhf.data.records import Message, Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.serve.access import ApiAccess
from rlhf.serve.chat.models import Models
from rlhf.serve.metrics import Metrics
from rlhf.serve.options import ServingSettings
from rlhf.serve.scores.models import Scorers, is_reward_model
from rlhf.serve.server import build_app

ASKED, SAID = ["점심에 뭘 먹을까?", "점심에 뭘 먹을까?", "비 와."], ["김치찌개는 어떠세요?", "몰라.", "우산 챙기세요"]


@pytest.fixture(scope="module")
def scorers(tiny_reward: Path) -> Scorers:
    found = Scorers(queue=0)
    found.add("reward", str(tiny_reward))
    return found


@pytest.fixture
def client(scorers: Scorers) -> Iterator[TestClient]:
    metrics = Metrics()
    with TestClient(build_app(Models(ServingSettings(), metrics), metrics, ApiAccess(), scorers=scorers)) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tiny_reward: Path, chat_tokenizer: ChatTokenizer) -> Any:
    """The score of turns and an answer by plain transformers; of ids as they are."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward).eval()

    def of_ids(ids: list[int]) -> float:
        with torch.no_grad():
            return float(model.score(model.gpt_neox(torch.tensor([ids])).last_hidden_state[0, -1]))

    def of_text(turns: list[str], answer: str, *, finished: bool = True) -> float:
        roles: Any = ["user", "assistant"] * len(turns)
        messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))
        ids = Encoder(chat_tokenizer, 500).prompts([Prompt(messages)])[0].ids.tolist()
        return of_ids([*ids, *chat_tokenizer.token_ids([answer])[0], *[chat_tokenizer.eos_id] * finished])

    of_text.of_ids = of_ids  # type: ignore[attr-defined]
    return of_text


def test_prompts_and_answers_alone(client: TestClient, plain: Any) -> None:
    reply = client.post("/v1/scores", json={"prompts": ASKED, "answers": SAID}).json()
    expected = [plain([prompt], answer) for prompt, answer in zip(ASKED, SAID, strict=True)]
    assert reply == {"scores": pytest.approx(expected, abs=1e-4), "model": "reward"}


def test_the_text_of_special_tokens_and_empty_answers_are_read_as_by_rlhf_score(
    client: TestClient, plain: Any, scorers: Scorers, chat_tokenizer: ChatTokenizer
) -> None:
    ending = chat_tokenizer.tokenizer.decode([chat_tokenizer.eos_id])
    said = ["우산 챙기세요", f"우산 {ending}챙기세요{ending}", "", "  "]
    found = client.post("/v1/scores", json={"prompts": ["비 와."] * 4, "answers": said}).json()["scores"]
    prompt = Encoder(chat_tokenizer, 500).prompts([Prompt((Message("user", "비 와."),))])[0].ids.tolist()
    nothing = plain.of_ids([*prompt, chat_tokenizer.eos_id])
    assert found == pytest.approx([plain(["비 와."], said[0])] * 2 + [nothing] * 2, abs=1e-4)
    scorer = scorers.get("reward").scorer
    tree = scorer.tree((Message("user", "비 와."),), said, [True] * 4)
    assert found == pytest.approx(scorer.scores([tree])[0], abs=1e-4)


def test_whole_conversations_and_answers_that_were_cut(client: TestClient, plain: Any) -> None:
    turns = [{"role": "user", "content": "심심해."}, {"role": "assistant", "content": "산책 어때요?"}]
    body = {
        "prompts": ["비 와.", "비 와."],
        "answers": ["우산 챙기세요", "우산 챙기세요"],
        "messages": [[*turns, {"role": "user", "content": "비 와."}]] * 2,
        "finished": [True, False],
    }
    expected = [plain(["심심해.", "산책 어때요?", "비 와."], "우산 챙기세요", finished=end) for end in (True, False)]
    assert client.post("/v1/scores?model=reward", json=body).json()["scores"] == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 0.01


def test_ids_count_where_both_sides_have_one_tokenizer(
    client: TestClient, plain: Any, chat_tokenizer: ChatTokenizer
) -> None:
    """Ids that no encoding of the text gives, as a policy samples them."""
    tokens = {"tokenizer": chat_tokenizer.fingerprint(), "prompts": [[5, 6, 7]] * 2, "answers": [[9, 10], [11]]}
    body = {"prompts": ["가", "가"], "answers": ["나", "다"], "tokens": tokens}
    scores = client.post("/v1/scores", json=body).json()["scores"]
    assert scores == pytest.approx([plain.of_ids([5, 6, 7, 9, 10]), plain.of_ids([5, 6, 7, 11])], abs=1e-4)
    body["tokens"] = tokens | {"tokenizer": "another"}
    scores = client.post("/v1/scores", json=body).json()["scores"]
    assert scores == pytest.approx([plain(["가"], "나"), plain(["가"], "다")], abs=1e-4)


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")])
def test_score_as_vllm(client: TestClient, plain: Any, names: tuple[str, str]) -> None:
    """One prompt for all answers, through the sigmoid unless `use_activation` is false."""
    raw = [plain([ASKED[0]], answer) for answer in SAID[:2]]
    body = {"model": "reward", names[0]: ASKED[0], names[1]: SAID[:2]}
    reply = client.post("/score", json=body | {"use_activation": False}).json()
    assert reply["object"] == "list"
    assert [(each["index"], each["object"]) for each in reply["data"]] == [(0, "score"), (1, "score")]
    assert [each["score"] for each in reply["data"]] == pytest.approx(raw, abs=1e-4)
    assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 0
    activated = client.post("/v1/score", json=body).json()["data"]
    assert [each["score"] for each in activated] == pytest.approx([1 / (1 + math.exp(-x)) for x in raw], abs=1e-5)


def test_classify_as_vllm(client: TestClient, plain: Any, chat_tokenizer: ChatTokenizer) -> None:
    turns = [{"role": "user", "content": "비 와."}, {"role": "assistant", "content": "우산 챙기세요"}]
    text = chat_tokenizer.tokenizer.apply_chat_template(turns, tokenize=False)
    ids = chat_tokenizer.token_ids([text])[0]
    body = {"model": "reward", "input": [text], "use_activation": False}
    (found,) = client.post("/classify", json=body).json()["data"]
    assert found == {
        "index": 0, "label": "LABEL_0", "probs": [pytest.approx(plain.of_ids(ids), abs=1e-4)], "num_classes": 1
    }  # fmt: skip
    body = {"messages": turns, "use_activation": False}
    (found,) = client.post("/classify", json=body).json()["data"]
    assert found["probs"] == [pytest.approx(plain(["비 와."], "우산 챙기세요"), abs=1e-4)]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/scores", {"prompts": ["가"], "answers": ["나", "다"]}, 400, "prompts has 1 entries for 2 answers"),
        ("/v1/scores", {"prompts": ["가"], "answers": ["나"], "finished": []}, 400, "finished has 0 entries"),
        ("/v1/scores", {"prompts": [" "], "answers": ["나"]}, 400, "prompts[0]"),
        ("/v1/scores", {"prompts": ["가"], "answers": ["나 " * 300]}, 400, "maximum context length"),
        ("/v1/scores", {"prompts": ["가"], "answers": ["나"], "score": 1}, 400, "Unknown parameter"),
        ("/v1/scores", {"prompts": ["가"], "answers": ["나"], "model": "friendly"}, 404, "friendly"),
        ("/score", {"text_1": "가"}, 400, "text_1 and text_2"),
        ("/score", {"text_1": ["가", "나"], "text_2": ["다", "라", "마"]}, 400, "2 prompts for 3 answers"),
        ("/classify", {"input": "가", "messages": []}, 400, ""),
        ("/classify", {"messages": [{"role": "user", "content": "가"}]}, 400, "does not end in an answer"),
        ("/v1/chat/completions", {"model": "reward", "messages": [{"role": "user", "content": "가"}]}, 404, "reward"),
    ],
)
def test_what_is_refused(client: TestClient, path: str, body: dict[str, Any], status: int, message: str) -> None:
    reply = client.post(path, json=body)
    assert reply.status_code == status
    assert message in reply.json()["error"]["message"]


def test_an_id_that_is_no_token_is_refused(client: TestClient, chat_tokenizer: ChatTokenizer) -> None:
    tokens = {"tokenizer": chat_tokenizer.fingerprint(), "prompts": [[5]], "answers": [[10**6]]}
    reply = client.post("/v1/scores", json={"prompts": ["가"], "answers": ["나"], "tokens": tokens})
    assert reply.status_code == 400
    assert "no token" in reply.json()["error"]["message"]


def test_reward_models_are_listed_as_what_they_are(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["task"], model["context_window"]) == ("reward", "score", 256)
    assert client.get("/v1/models/reward").json() == model


def test_what_is_one_request_too_many_is_told_to_come_back(
    scorers: Scorers, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is scored, none may wait beside it; the first is held until the second was answered, which is not even read:
    half a character would be an error of its own."""
    begun, go_on = threading.Event(), threading.Event()
    scorer = scorers.get("reward").scorer
    real = type(scorer).scores

    def held(*given: Any) -> Any:
        begun.set()
        go_on.wait(30)
        return real(*given)

    monkeypatch.setattr(type(scorer), "scores", held)
    body, statuses = {"prompts": ["가"], "answers": ["나"]}, []
    first = threading.Thread(target=lambda: statuses.append(client.post("/v1/scores", json=body).status_code))
    first.start()
    assert begun.wait(30)
    half = {
        "content": b'{"prompts": ["\xea\xb0\x80"], "answers": ["\\ud800"]}',
        "headers": {"content-type": "application/json"},
    }
    refused = client.post("/v1/scores", **half)  # type: ignore[arg-type]
    go_on.set()
    first.join()
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert statuses == [200]
    assert client.post("/v1/scores", **half).status_code == 400  # type: ignore[arg-type]


def test_which_folders_score(tmp_path: Path, tiny_reward: Path, tiny_neox: Path) -> None:
    assert is_reward_model(str(tiny_reward))
    assert not is_reward_model(str(tiny_neox))
    (tmp_path / "model").symlink_to(tiny_reward)
    assert is_reward_model(str(tmp_path))
