"""Self-Instruct and Evol-Instruct through a real service, and the command as its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.augment.command import augment, read_seeds
from rlhf.curate.augment.evol import Comparison
from rlhf.curate.augment.options import AugmentOptions
from rlhf.curate.augment.prompts import prompt_texts
from rlhf.curate.augment.rouge import SeenInstructions, korean_tokens
from rlhf.curate.augment.self_instruct import Instructions, LabelledInstance
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.endpoint.options import EndpointOptions
from rlhf.curate.output import Output
from rlhf.data.records import Demonstration
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ConfigError, DataError
from tests.support.openai_server import Behaviour, Fault, Server, serve

SEEDS = (
    "주말에 비가 온다는데 집에서 할 만한 놀이를 알려 주세요.",
    "새로 이사한 동네에서 친구를 사귀고 싶어요.",
    "강아지가 밥을 잘 안 먹어서 걱정이에요.",
    "다음 문장을 높임말로 바꿔 줘.",
    "김치찌개를 덜 짜게 끓이는 방법이 있을까?",
    "회사에서 발표를 앞두고 너무 떨려요.",
    "겨울에 읽기 좋은 소설을 추천해 주실래요?",
    "이 후기가 긍정인지 부정인지 골라 줘.",
)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"prompt": seed}, ensure_ascii=False) + "\n" for seed in SEEDS), "utf-8")
    return path


def run(
    server: Server, out: Path, method: str, num: int, seeds: Sequence[str] = SEEDS, **options: Any
) -> tuple[list[dict[str, Any]], Output, str]:
    """Rows, what was dropped, and why it stopped."""
    concurrency = options.pop("concurrency", 4)
    output = Output(out, command="data augment", inputs=[], options={})
    with Endpoint(server.url, "m", EndpointOptions(concurrency=concurrency, backoff_s=0.01)) as endpoint, output:
        chosen = AugmentOptions(method, "seeds.jsonl", server.url, "m", num, out, **options)
        stopped = augment(seeds, endpoint, chosen, output)
    return rows_of(out), output, stopped


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Likeness


def test_particles_are_tokens_of_their_own() -> None:
    assert korean_tokens("도서관에서 책을 GPT로 골라 줘!") == ["도서관", "에서", "책", "을", "gpt", "로", "골라", "줘"]


def test_an_instruction_like_one_before_is_found() -> None:
    # 도서관 에서 책 을 빌려요 / 도서관 의 책 을 읽어요: 도서관, 책 and 을 in common, F1 = 2 * 3 / (5 + 5)
    seen = SeenInstructions(0.6)
    seen.add("내일 날씨를 알려 줘")
    seen.add("도서관에서 책을 빌려요")
    assert seen.similar_to("도서관의 책을 읽어요") == "도서관에서 책을 빌려요"
    stricter = SeenInstructions(0.61)
    stricter.add("도서관에서 책을 빌려요")
    assert stricter.similar_to("도서관의 책을 읽어요") is None


# Answers in JSON


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"is_equal": true}', {"is_equal": True}),
        ('네, 여기 있어요.\n```json\n{"is_equal": false}\n```', {"is_equal": False}),
        ('{"is_equal": "true"}', None),
        ('{"equal": true}', None),
        ('{"is_equal": tru', None),
        ("[true]", None),
        ("", None),
    ],
)
def test_an_object_is_read_off_an_answer(text: str, expected: object) -> None:
    found = Comparison.read(text)
    assert (found and found.model_dump()) == expected


def test_texts_of_an_object_are_composed_and_stripped() -> None:
    decomposed = "\u1112\u1161\u11ab"
    found = Instructions.read(json.dumps({"instructions": [f" {decomposed}\n"]}))
    assert found == Instructions(instructions=["한"])
    assert Instructions.read('{"instructions": ["가", 1]}') is None


def test_structured_output_is_asked_for_as_wanted() -> None:
    form = LabelledInstance
    assert form.response_format("prompt") is None
    assert form.response_format("object") == {"type": "json_object"}
    schema = (form.response_format("schema") or {})["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["label", "input"]
    assert schema["properties"]["label"]["type"] == "string"
    assert schema["additionalProperties"] is False


# Self-Instruct

NEW = {
    "instructions": [
        "주말에 비가 온다는데 집에서 할 만한 놀이를 알려 줘요.",  # a seed but for its last word: 13 of 14 tokens
        "짧은 말",
        "Please write a short poem about the sea for me",
        "고양이 사진을 보고 품종을 알려 주세요.",
        "할머니께 드릴 생신 카드 문구를 써 주세요.",
        "이 댓글이 스팸인지 아닌지 가려내 줄래?",
    ]
}


def scripted_instances(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    keys = body["response_format"]["json_schema"]["schema"]["required"]
    answers: dict[tuple[str, ...], dict[str, Any]] = {
        ("instructions",): NEW,
        ("is_classification",): {"is_classification": "스팸" in asked.rpartition("부탁:")[2]},
        ("input", "output"): {"input": "없음", "output": "생신을 축하드려요, 할머니!"},
        ("label", "input"): {"label": "스팸", "input": "지금 눌러 보세요. 백만 원을 드려요."},
    }
    return json.dumps(answers[tuple(keys)], ensure_ascii=False)


def test_self_instruct_keeps_what_is_new_and_fit(tmp_path: Path) -> None:
    with serve(Behaviour(answer=scripted_instances)) as server:
        rows, output, stopped = run(server, tmp_path / "a.jsonl", "self-instruct", 2)
        requests = server.requests
    assert stopped == ""
    common = {"source": "self-instruct", "model": "m"}
    assert rows == [
        {
            "instruction": "할머니께 드릴 생신 카드 문구를 써 주세요.",
            "input": "",
            "output": "생신을 축하드려요, 할머니!",
            "is_classification": False,
            **common,
        },
        {
            "instruction": "이 댓글이 스팸인지 아닌지 가려내 줄래?",
            "input": "지금 눌러 보세요. 백만 원을 드려요.",
            "output": "스팸",
            "is_classification": True,
            **common,
        },
    ]
    assert output.dropped == {
        "too similar to another": 1,
        "too short or too long": 1,
        "not Korean": 1,
        "needs more than text": 1,
    }
    assert len(requests) == 1 + 2 + 2  # examples; two questions; two instances
    assert all(
        seed in requests[0]["messages"][-1]["content"] for seed in SEEDS
    )  # eight, since there are none of its own
    assert [body["temperature"] for body in requests].count(0.0) == 2


def test_self_instruct_ends_when_nothing_new_comes(tmp_path: Path) -> None:
    with serve(Behaviour(answer=scripted_instances)) as server:
        rows, output, stopped = run(server, tmp_path / "a.jsonl", "self-instruct", 5)
    assert len(rows) == 2
    assert "nothing new" in stopped
    assert (
        output.dropped["too similar to another"] == 1 + 8 * 3
    )  # per later round: one like the seed, two like the kept


def test_refused_cut_and_unreadable_answers_are_counted(tmp_path: Path) -> None:
    outputs = iter(["그 요청은 도와드릴 수 없습니다.", "도움이 되었으면 좋겠어요!"])

    def answer(body: dict[str, Any]) -> str:
        if "output" in str(body["response_format"]):
            return json.dumps({"input": "", "output": next(outputs)}, ensure_ascii=False)
        return (
            scripted_instances(body)
            if "instructions" in str(body["response_format"])
            else '{"is_classification": false}'
        )

    faults = {0: Fault("refusal"), 1: Fault("empty")}
    with serve(Behaviour(answer=answer, faults=faults)) as server:
        rows, output, _ = run(server, tmp_path / "a.jsonl", "self-instruct", 1, concurrency=1)
    assert [row["output"] for row in rows] == ["도움이 되었으면 좋겠어요!"]
    # Two rounds bring no examples. Then the refused output costs the first instruction, and its likeness is gone.
    assert output.dropped["refused"] == 2
    assert output.dropped["empty answer"] == 1


# Evol-Instruct


def evolving(equal: Callable[[str], bool] = lambda _: False, answer: str = "차근차근 해 보시면 잘하실 거예요.") -> Any:
    """Evolves by one more 또; `equal` decides on the second text of a comparison."""

    def reply(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        if "is_equal" in asked:
            return json.dumps({"is_equal": equal(asked.split("두 번째: ")[1].split("\n")[0])})
        if '{"instruction"' in asked:
            given = asked.split("<원래 말>\n")[1].split("\n</원래 말>")[0]
            return json.dumps({"instruction": f"{given} 또"}, ensure_ascii=False)
        return answer

    return reply


def test_each_seed_is_evolved_generation_by_generation(tmp_path: Path) -> None:
    with serve(Behaviour(answer=evolving())) as server:
        rows, output, stopped = run(server, tmp_path / "e.jsonl", "evol", 8, generations=4)
        requests = server.requests
    assert stopped == ""
    assert output.dropped == {}
    origins = {row["origin"] for row in rows}
    assert len(origins) == 2  # 8 rows of 4 generations
    assert [row["generation"] for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(row["instruction"] == row["origin"] + " 또" * row["generation"] for row in rows)
    assert {row["operation"] for row in rows} <= {"constraints", "deepening", "concretising", "reasoning", "breadth"}
    assert len(requests) == 8 * 3  # evolve, compare, answer
    methods = prompt_texts("evol")["methods"]
    depth = [row["operation"] for row in rows if row["operation"] != "breadth"]
    sent = "".join(body["messages"][-1]["content"] for body in requests)
    assert all(sent.count(methods[operation]) == depth.count(operation) for operation in methods)


def test_an_evolution_without_gain_is_tried_twice(tmp_path: Path) -> None:
    with serve(Behaviour(answer=evolving(equal=lambda text: text.endswith("또 또")))) as server:
        rows, output, stopped = run(server, tmp_path / "e.jsonl", "evol", 16, generations=2)
    assert stopped == "every seed is used up"
    assert sorted(row["origin"] for row in rows) == sorted(SEEDS)
    assert {row["generation"] for row in rows} == {1}
    # The second try of the same instruction evolves it to the same text, which is taken by then.
    assert output.dropped == {"no gain": 8, "repeats another": 8}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("죄송해요, 잘 모르겠어요.", "refused"),
        ("...!", "empty answer"),
        ("저는 인공지능이라 그 내용은 답변할 수 없습니다.", "refused"),
    ],
)
def test_an_evolution_that_cannot_be_answered_is_given_up(tmp_path: Path, answer: str, reason: str) -> None:
    with serve(Behaviour(answer=evolving(answer=answer))) as server:
        rows, output, _ = run(server, tmp_path / "e.jsonl", "evol", 2, seeds=SEEDS[:1])
    assert rows == []
    assert output.dropped == {reason: 1, "repeats another": 1}


def test_an_evolution_that_repeats_the_prompt_is_given_up(tmp_path: Path) -> None:
    seed = "새로 쓴 말을 고쳐 주세요."
    with serve(Behaviour(answer=evolving())) as server:
        _, output, _ = run(server, tmp_path / "e.jsonl", "evol", 1, seeds=[seed])
    assert output.dropped == {"repeats the prompt": 2}


# Both


@pytest.mark.parametrize("method", ["self-instruct", "evol"])
def test_rows_depend_on_seed_and_answers_alone(tmp_path: Path, method: str) -> None:
    with serve() as server:
        one, output, _ = run(server, tmp_path / "1.jsonl", method, 10, concurrency=1)
        again, _, _ = run(server, tmp_path / "1.jsonl", method, 10, concurrency=1, seed=18)
    faults = {2: Fault("500"), 5: Fault("cut"), 9: Fault("malformed")}
    with serve(Behaviour(faults=faults, delay_s=0.01)) as server:
        many, _, _ = run(server, tmp_path / "2.jsonl", method, 10, concurrency=8)
    assert one == many
    assert len(one) == 10
    assert one != again
    assert "unreadable answer" not in output.dropped
    kept = read_records(DataSource(str(tmp_path / "2.jsonl")), Demonstration)
    assert (len(kept.records), kept.report.format) == (10, "instruction")


def test_seeds_are_single_turns_each_once(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    turns = [
        {"role": "user", "content": "안녕"},
        {"role": "assistant", "content": "네"},
        {"role": "user", "content": "뭐 해"},
    ]
    alone = {"messages": [{"role": "user", "content": "고쳐 줘", "input": "안뇽"}]}
    lines = [alone, {"messages": turns}, alone]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    assert read_seeds(str(path)) == ["고쳐 줘\n안뇽"]
    path.write_text(json.dumps({"messages": turns}), "utf-8")
    with pytest.raises(DataError, match="single turn"):
        read_seeds(str(path))


@pytest.mark.parametrize("wrong", [{"num": 0}, {"num": 1, "similarity": 0.0}, {"num": 1, "top_p": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AugmentOptions("evol", "seeds.jsonl", "http://127.0.0.1:1/v1", "m", out=Path("out.jsonl"), **wrong)


# The command


def command(server: Server, seeds: Path, out: Path, *more: str) -> list[str]:
    given = f"data augment --method self-instruct --num 12 --model m --concurrency 2 --endpoint {server.url}"
    return [*given.split(), "--seeds", str(seeds), "--out", str(out), *more]


def test_a_spent_budget_keeps_what_was_done_and_the_rest_is_paid_later(
    tmp_path: Path, seeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    with serve() as server:
        assert main(command(server, seeds, whole)) == 0
        total = len(server.requests)
        assert main(command(server, seeds, out, "--max-requests", str(total - 3))) == 0
        assert len(server.requests) == total + total - 3
        assert 0 < len(rows_of(out)) < 12
        assert f"the limit of {total - 3} requests is reached" in capsys.readouterr().err
        assert "the limit" in json.loads(Path(f"{out}.manifest.json").read_text("utf-8"))["stopped"]
        assert main(command(server, seeds, out)) == 0
        assert len(server.requests) == total + total
    assert out.read_bytes() == whole.read_bytes()


def test_a_failing_endpoint_leaves_what_was_there(
    tmp_path: Path, seeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before\n", encoding="utf-8")
    with serve(Behaviour(faults={3: Fault("401")})) as server:
        assert main(command(server, seeds, out)) == 1
    assert out.read_text(encoding="utf-8") == "before\n"
    said = capsys.readouterr().err
    assert "Incorrect API key" in said
    assert "run again" in said


def test_a_killed_process_pays_for_the_rest_only(tmp_path: Path, seeds: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    with serve() as server:
        assert main(command(server, seeds, whole)) == 0
        total = len(server.requests)
    with serve(Behaviour(delay_s=0.1)) as server:
        arguments = [sys.executable, "-m", "rlhf", *command(server, seeds, out)]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        deadline = time.monotonic() + 60
        while len(server.requests) < total // 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not out.exists()
        before = len(server.requests)
        server.behaviour.delay_s = 0.0
        assert main(command(server, seeds, out)) == 0
        after = len(server.requests) - before
    assert total // 2 <= before < total
    assert total - before <= after <= total - before + 2  # two were under way
    assert out.read_bytes() == whole.read_bytes()
