"""K answers a prompt: whose they are, what was counted, and going on after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.artifacts.files import sha256_of
from rlhf.cli import main
from rlhf.config.sections import SamplingSection
from rlhf.curate.answer_rows import AnswerRow, read_answer_rows
from rlhf.curate.output import manifest_path
from rlhf.curate.partial import PartialFile
from rlhf.curate.sample import sampler as sampling_module
from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sampler import sample_answers
from rlhf.curate.sample.sources import LocalModel
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.ranks import Ranks
from rlhf.errors import DataError, EndpointError
from tests.support.openai_server import Behaviour, Fault, serve

ALONE = Ranks(0, 0, 1, torch.device("cpu"))
PROMPTS: list[dict[str, Any]] = [
    {"prompt": "오늘 날씨 어때?", "source": "날씨"},
    {"prompt": "점심에 뭘 먹을까?"},
    {
        "messages": [
            {"role": "user", "content": "심심해."},
            {"role": "assistant", "content": "산책 어때요?"},
            {"role": "user", "content": "비 와."},
        ]
    },
    {"prompt": "우산을 잃어버렸어."},
    {"prompt": "제주도 가고 싶다."},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_neox: Path, chat_tokenizer: ChatTokenizer) -> Path:
    """The tiny model as a stage leaves it: with its template."""
    folder = tmp_path_factory.mktemp("run") / "model"
    shutil.copytree(tiny_neox, folder)
    chat_tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in PROMPTS), encoding="utf-8")
    return path


def plan(prompts: Path, out: Path, *models: Path, k: int = 2, seed: int = 3, **more: Any) -> SampleOptions:
    sampling = SamplingSection(max_new_tokens=6, max_prompt_tokens=128, batch_size=4)
    return SampleOptions(str(prompts), out, tuple(map(str, models)), k=k, seed=seed, sampling=sampling, **more)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_generators_answer_each_prompt_k_times(tmp_path: Path, model: Path, prompts: Path):
    out = tmp_path / "s.jsonl"
    flags = ["--model", str(model.parent), "--model", str(model), "--prompts", str(prompts), "--k", "2", "--limit", "3"]
    lengths = ["--max-new-tokens", "6", "--max-prompt-tokens", "128"]
    assert main(["data", "sample", *flags, *lengths, "--top-p", "0.9", "--out", str(out)]) == 0
    rows = rows_of(out)
    assert [row["prompt"] for row in rows[:2]] == ["오늘 날씨 어때?", "점심에 뭘 먹을까?"]
    assert rows[2]["prompt"] == PROMPTS[2]["messages"]
    assert [row["source"] for row in rows] == ["날씨", "prompts", "prompts"]
    for row in rows:
        assert len(row["responses"]) == len(row["answers"]) == 4
        assert row["models"] == [str(model.parent)] * 2 + [str(model)] * 2
        for answer in row["answers"]:
            assert answer["sha256"] == sha256_of(model)
            assert answer["decoding"]["top_p"] == 0.9
            assert answer["decoding"]["dtype"] == "float32"
            assert 1 <= answer["tokens"] <= 6
            assert answer["finished"] or answer["tokens"] == 6
    manifest = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    assert manifest["kept"] == 3
    assert manifest["counts"]["answers"] == 12
    assert manifest["tokens"] == sum(answer["tokens"] for row in rows for answer in row["answers"])
    assert manifest["counts"]["answers cut at the limit"] == sum(
        not answer["finished"] for row in rows for answer in row["answers"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.jsonl", "s.jsonl.manifest.json"]
    judgeable = [row for row in read_answer_rows(str(out)) if isinstance(row, AnswerRow)]
    assert [row.prompt[-1].content for row in judgeable] == ["오늘 날씨 어때?", "점심에 뭘 먹을까?", "비 와."]


def test_greedy_answers_are_equal_and_counted(tmp_path: Path, model: Path, prompts: Path):
    sampling = SamplingSection(max_new_tokens=4, max_prompt_tokens=128, temperature=0)
    greedy = SampleOptions(str(prompts), tmp_path / "s.jsonl", (str(model),), k=3, seed=1, sampling=sampling)
    sample_answers(greedy, ALONE)
    assert all(len(set(row["responses"])) == 1 for row in rows_of(greedy.out))
    manifest = json.loads(manifest_path(greedy.out).read_text(encoding="utf-8"))
    assert manifest["counts"]["identical answers"] == 10  # two of three for each of five prompts


def test_an_interrupted_run_goes_on_and_gives_the_same_file(
    tmp_path: Path, model: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = plan(prompts, tmp_path / "whole.jsonl", model)
    sample_answers(whole, ALONE)
    monkeypatch.setattr(sampling_module, "FILLS", 1)  # 4 slots, 2 answers: two prompts at a time
    draw, calls = LocalModel.draw, iter(range(10))

    def power_cut(self: LocalModel, asked: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return draw(self, asked)

    monkeypatch.setattr(LocalModel, "draw", power_cut)
    broken = plan(prompts, tmp_path / "broken.jsonl", model)
    with pytest.raises(KeyboardInterrupt):
        sample_answers(broken, ALONE)
    assert not broken.out.exists()
    partial = tmp_path / "broken.jsonl.partial"
    with partial.open("ab") as file:
        file.write(b'{"row": 2, "answerer": 0, "answers": [{"te')  # cut off by the crash
    assert "6 drawn" in sample_answers(broken, ALONE)  # 2 prompts were there, 3 are left
    assert broken.out.read_bytes() == whole.out.read_bytes()
    assert not partial.exists()


def test_a_start_with_other_settings_does_not_mix(
    tmp_path: Path, model: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
):
    def power_cut(self: LocalModel, asked: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalModel, "draw", power_cut)
        with pytest.raises(KeyboardInterrupt):
            sample_answers(plan(prompts, tmp_path / "s.jsonl", model), ALONE)
    with pytest.raises(DataError, match=r"another seed.*\n.*delete the file"):
        sample_answers(plan(prompts, tmp_path / "s.jsonl", model, seed=4), ALONE)
    with pytest.raises(DataError, match="another k"):
        sample_answers(plan(prompts, tmp_path / "s.jsonl", model, k=3), ALONE)


def test_an_endpoint_answers_beside_a_model(tmp_path: Path, model: Path, prompts: Path):
    out = tmp_path / "s.jsonl"
    local = ["--model", str(model), "--prompts", str(prompts), "--k", "2", "--max-new-tokens", "6"]
    with serve(Behaviour(answer=lambda body: body["messages"][-1]["content"] + " 그렇군요.")) as server:
        remote = ["--endpoint", server.url, "--endpoint-model", "m", "--max-prompt-tokens", "128"]
        assert main(["data", "sample", *local, *remote, "--out", str(out)]) == 0
        longest = max(server.requests, key=lambda body: len(body["messages"]))
    assert longest["messages"] == PROMPTS[2]["messages"]
    assert longest["max_tokens"] == 6
    rows = rows_of(out)
    assert [row["models"] for row in rows] == [[str(model)] * 2 + ["m"] * 2] * 5
    assert rows[3]["responses"][2:] == ["우산을 잃어버렸어. 그렇군요."] * 2
    assert rows[3]["answers"][2]["decoding"] == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 6}
    assert rows[3]["answers"][2]["finished"] is True


def test_what_an_endpoint_gave_before_it_failed_is_kept(tmp_path: Path, prompts: Path):
    from rlhf.curate.endpoint.client import Endpoint
    from rlhf.curate.endpoint.options import EndpointOptions

    asked = plan(prompts, tmp_path / "s.jsonl", endpoint="http://127.0.0.1:1/v1", endpoint_model="m")
    with (
        serve(Behaviour(faults=lambda number, _: Fault("400") if number == 5 else None)) as server,
        Endpoint(server.url, "m", EndpointOptions(concurrency=1)) as endpoint,
        pytest.raises(EndpointError),
    ):
        sample_answers(asked, ALONE, endpoint)
    with serve(Behaviour(), int(server.url.rsplit(":", 1)[1].removesuffix("/v1"))) as again:
        with Endpoint(again.url, "m") as endpoint:
            sample_answers(asked, ALONE, endpoint)
        assert len(again.requests) == 6  # two prompts of two answers were there
    assert len(rows_of(asked.out)) == 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name a model"),
        (["--model", "runs/none/model"], "no such folder"),
        (["--endpoint", "http://127.0.0.1:1/v1"], "go together"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m", "--top-k", "5"], "takes no top-k"),
        (["--model", "x", "--k", "0"], "--k: is 0"),
        (["--model", "x", "--top-p", "2"], "--top-p: is 2.0"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, prompts: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["data", "sample", "--prompts", str(prompts), "--out", str(tmp_path / "s.jsonl"), *flags]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_room_says_so(tmp_path: Path, model: Path, prompts: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--model", str(model), "--prompts", str(prompts), "--out", str(tmp_path / "s.jsonl")]
    assert main(["data", "sample", *flags]) == 1
    assert "256 positions" in capsys.readouterr().err  # the defaults ask for 512 + 256


def test_bad_prompts_stop_it_or_are_counted(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "안녕"}\n{"prompt": ""}\n{"prompt"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.jsonl:2"):
        sample_answers(plan(path, tmp_path / "s.jsonl", model), ALONE)
    told = sample_answers(plan(path, tmp_path / "s.jsonl", model, on_bad_row="skip"), ALONE)
    assert "1 rows; dropped 2 bad row" in told


def test_the_partial_file_gives_back_what_was_added(tmp_path: Path):
    first = PartialFile(tmp_path / "o.jsonl", {"k": 2}, ("row",))
    first.add([{"row": 3, "text": "가\u2028나"}, {"row": 1, "text": "다"}])
    second = PartialFile(tmp_path / "o.jsonl", {"k": 2}, ("row",))
    second.add([{"row": 0, "text": "라"}])
    assert set(second.places) == {(0,), (1,), (3,)}
    assert [entry["text"] for entry in second.read([(0,), (3,), (1,)])] == ["라", "가\u2028나", "다"]
