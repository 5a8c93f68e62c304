"""Judging over HTTP: a scripted judge on this machine, asked with the real client."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.curate.answer_rows import AnswerRow, read_answer_rows
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.judge.criteria import load_criteria
from rlhf.curate.judge.pairwise import JudgedRow, JudgeSettings, judge_rows
from rlhf.curate.judge.scores import JudgeReport
from rlhf.curate.output import manifest_path
from rlhf.data.records import Message, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError
from tests.support.openai_server import Behaviour, Fault, Server, serve

CRITERIA = load_criteria("conversation")
POINTS = {"따뜻한 답": 5, "무난한 답": 4, "차가운 답": 2}
ONE_REPLY = JudgeSettings(samples=1, temperature=0.0)


def shown(body: dict[str, Any]) -> list[str]:
    """The two answers of a judge's request, in the order shown."""
    return re.findall(r"<답변 \d>\n(.*?)\n</답변 \d>", body["messages"][1]["content"], re.DOTALL)


def form(first: int, second: int) -> str:
    return "[점수]\n" + "\n".join(f"{name}: 답변 1 = {first}, 답변 2 = {second}" for name in CRITERIA.names)


def fair(body: dict[str, Any]) -> str:
    first, second = shown(body)
    return form(POINTS[first], POINTS[second])


def likes_the_first(body: dict[str, Any]) -> str:
    """Takes a point from whatever is shown second."""
    first, second = shown(body)
    return form(POINTS[first], POINTS[second] - 1)


def row(*responses: str) -> AnswerRow:
    return AnswerRow((Message("user", "나 왔어."),), responses, "t", {})


def judged(
    answer: Callable[[dict[str, Any]], str] | None, rows: list[AnswerRow], settings: JudgeSettings = ONE_REPLY
) -> tuple[list[JudgedRow], JudgeReport, Server]:
    report = JudgeReport(CRITERIA.names)
    with serve(Behaviour(answer=answer)) as server, Endpoint(server.url, "m") as endpoint:
        return list(judge_rows(rows, CRITERIA, endpoint, settings, report)), report, server


def test_each_pair_is_judged_in_both_orders():
    found, report, server = judged(fair, [row("따뜻한 답", "차가운 답")])
    assert found[0].scores == [[5.0] * 6, [2.0] * 6]
    assert [shown(body) for body in server.requests] in (
        [["따뜻한 답", "차가운 답"], ["차가운 답", "따뜻한 답"]],
        [["차가운 답", "따뜻한 답"], ["따뜻한 답", "차가운 답"]],
    )
    assert report.as_dict()["first_minus_second"] == 0.0
    assert report.as_dict()["same_verdict_in_both_orders"] == 1.0


def test_what_the_place_gives_is_measured_and_averaged_out():
    found, report, _ = judged(likes_the_first, [row("따뜻한 답", "무난한 답"), row("차가운 답", "따뜻한 답")])
    assert found[0].scores == [[4.5] * 6, [3.5] * 6]  # (5 + 4) / 2 and (4 + 3) / 2
    figures = report.as_dict()
    assert figures["first_minus_second"] == 6.0  # a point in each of six criteria
    # 5 against 3 and 4 against 4 in the first row; 2 against 4 and 5 against 1 in the second
    assert (figures["first_won"], figures["second_won"], figures["tied"]) == (2, 1, 1)
    assert figures["same_verdict_in_both_orders"] == 0.5


def test_more_answers_and_equal_ones():
    found, _, server = judged(
        fair, [row("따뜻한 답", "차가운 답", "무난한 답", "따뜻한 답"), row("무난한 답", "무난한 답")]
    )
    assert [points[0] for points in found[0].scores or []] == [5.0, 2.0, 4.0, 5.0]
    assert len(server.requests) == 6  # three pairs of different answers; nothing for the row of equal ones
    assert found[1].scores is None
    assert found[1].problem == "all answers are equal"


def test_an_unreadable_form_is_asked_for_again_with_what_was_wrong():
    def slips(body: dict[str, Any]) -> str:
        return (
            fair(body) if len(body["messages"]) > 2 else fair(body).replace("친근함: 답변 1 = ", "친근함: 답변 1 = 약 ")
        )

    found, report, server = judged(slips, [row("따뜻한 답", "차가운 답")])
    assert found[0].scores == [[5.0] * 6, [2.0] * 6]
    assert report.asked_again == 2
    again = server.requests[-1]["messages"]
    assert [turn["role"] for turn in again] == ["system", "user", "assistant", "user"]
    assert "친근함" in again[3]["content"].splitlines()[0]


def test_a_row_that_stays_unreadable_has_no_scores_and_the_others_keep_theirs():
    def stubborn(body: dict[str, Any]) -> str:
        return "잘 모르겠어요." if shown(body) == ["차가운 답", "따뜻한 답"] else fair(body)

    rows = [row("따뜻한 답", "차가운 답"), row("무난한 답", "차가운 답")]
    found, report, server = judged(stubborn, rows, JudgeSettings(samples=1, form_retries=1))
    assert found[0].scores is None
    assert found[0].problem == "the judge's reply cannot be read"
    assert found[1].scores == [[4.0] * 6, [2.0] * 6]
    assert (report.replies, report.asked_again, report.given_up) == (5, 1, 1)
    assert len(server.requests) == 5
    assert report.as_dict()["pairs_in_both_orders"] == 1  # half a pair says nothing of the place


def test_scores_are_weighted_where_the_service_gives_probabilities():
    found, report, server = judged(fair, [row("무난한 답", "차가운 답")], JudgeSettings("logprobs"))
    # the service gives each score a chance that falls by e with its distance from the one written
    weights = {score: math.exp(-abs(score - 4)) for score in range(1, 6)}
    expected = sum(score * weight for score, weight in weights.items()) / sum(weights.values())
    assert found[0].scores is not None
    assert found[0].scores[0] == pytest.approx([expected] * 6, abs=1e-9)
    assert (report.scores_weighted, report.scores_as_written) == (24, 0)
    assert all(body["logprobs"] and body["temperature"] == 0 for body in server.requests)


def test_several_replies_are_averaged_where_it_does_not():
    replies = {"무난한 답": iter([form(4, 2), form(5, 2)]), "차가운 답": iter([form(2, 4), form(1, 5)])}
    settings = JudgeSettings(samples=2)
    found, _, server = judged(lambda body: next(replies[shown(body)[0]]), [row("무난한 답", "차가운 답")], settings)
    assert len(server.requests) == 4
    assert found[0].scores == [[4.5] * 6, [1.75] * 6]  # (4 + 5 + 4 + 5) / 4 and (2 + 2 + 2 + 1) / 4


# The command


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "s.jsonl"
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return path


ROWS = [
    {"prompt": "나 왔어.", "responses": ["따뜻한 답", "차가운 답"], "models": ["a", "b"], "source": "대화"},
    {"prompt": "배고파.", "responses": ["차가운 답", "", "무난한 답"], "answers": [{"k": 0}, {"k": 1}, {"k": 2}]},
    {"prompt": [{"role": "user", "content": "잘 자."}], "responses": ["차가운 답", "차가운 답 "]},
]


def judge(rows: Path, out: Path, server: Server, *more: str) -> int:
    flags = ["--in", str(rows), "--out", str(out), "--endpoint", server.url, "--model", "m", *more]
    return main(["data", "judge", *flags])


def test_the_command_writes_rankings_that_stage_2_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "j.jsonl"
    with serve(Behaviour(answer=likes_the_first)) as server:
        assert judge(written(tmp_path, ROWS), out, server, "--weighting", "samples", "--samples", "1") == 0
        asked = len(server.requests)
    read = read_records(DataSource(str(out)), Ranking)
    assert [(each.responses, each.ranks) for each in read.records] == [
        (("따뜻한 답", "차가운 답"), (1, 2)),
        (("차가운 답", "무난한 답"), (2, 1)),
    ]
    assert read.records[0].scores == (27.0, 9.0)  # six times (5 + 4) / 2 and (2 + 1) / 2
    assert read.records[0].source == "대화"
    second = json.loads(out.read_text(encoding="utf-8").splitlines()[1])
    assert second["answers"] == [{"k": 0}, {"k": 2}]  # the empty answer's entry went with it
    assert second["judged"]["points"]["친근함"] == [1.5, 3.5]
    manifest = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    assert manifest["dropped"] == {"all answers are equal": 1}
    assert manifest["judge"]["first_minus_second"] == 6.0
    assert manifest["criteria"]["criteria"][0]["name"] == "친근함"
    said = capsys.readouterr().err
    assert "3 rows, 4 requests: each pair in both orders, 1 reply each" in said
    assert "position bias: the answer shown first gets +6.00 of 30 points" in said
    assert asked == 4


def test_the_rule_for_pairs_can_be_changed_without_asking_again(tmp_path: Path):
    rows, out = written(tmp_path, ROWS), tmp_path / "j.jsonl"
    with serve(Behaviour(answer=fair)) as server:
        assert judge(rows, out, server) == 0  # finds out that there are probabilities
        asked = len(server.requests)
        assert judge(rows, out, server, "--min-sum", "30") == 0
        assert out.read_text(encoding="utf-8") == ""
        assert judge(rows, out, server, "--min-sum", "30", "--keep", "margins") == 0
        assert len(server.requests) == asked == 4
    assert len(read_records(DataSource(str(out)), Ranking).records) == 2


def test_a_service_that_refuses_logprobs_is_asked_for_several_replies(tmp_path: Path):
    def refuses(_: int, body: dict[str, Any]) -> Fault | None:
        return Fault("400") if body.get("logprobs") else None

    out = tmp_path / "j.jsonl"
    with serve(Behaviour(faults=refuses, answer=fair)) as server:
        assert judge(written(tmp_path, ROWS), out, server, "--samples", "3", "--max-requests", "12") == 0
        assert len(server.requests) == 13  # one refused, then 4 comparisons of 3 replies
    assert json.loads(manifest_path(out).read_text(encoding="utf-8"))["options"]["weighting"] == "samples"


def test_a_limit_stops_it_and_the_next_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows, out = written(tmp_path, ROWS), tmp_path / "j.jsonl"
    with serve(Behaviour(answer=fair)) as server:
        assert judge(rows, out, server, "--max-requests", "3") == 1
        assert "the limit of 3 requests is reached" in capsys.readouterr().err
        assert not out.exists()
        assert judge(rows, out, server, "--max-requests", "1") == 0
        assert len(server.requests) == 4


def test_a_bad_row_is_named_before_anything_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = written(
        tmp_path, [*ROWS, {"prompt": "어?", "responses": ["하나", " "]}, {"prompt": "어?", "response": "답"}]
    )
    with serve(Behaviour(answer=fair)) as server:
        assert judge(rows, tmp_path / "j.jsonl", server) == 1
        assert server.requests == []
        assert f"{rows}:4" in capsys.readouterr().err
        assert judge(rows, tmp_path / "j.jsonl", server, "--on-bad-row", "skip") == 0
    manifest = json.loads(manifest_path(tmp_path / "j.jsonl").read_text(encoding="utf-8"))
    assert manifest["dropped"]["bad row"] == 2


def test_rankings_can_be_judged_anew(tmp_path: Path):
    path = written(
        tmp_path,
        [
            {"prompt": "가?", "chosen": "나", "rejected": "다"},
            {"prompt": "가?", "responses": ["나", "다"], "ranks": [2, 1]},
        ],
    )
    rows = list(read_answer_rows(str(path)))
    assert [each.responses for each in rows if isinstance(each, AnswerRow)] == [("나", "다")] * 2
    assert not any(isinstance(each, DataError) for each in rows)
